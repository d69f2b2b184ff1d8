// All peers that run on Node, in one process: echo servers and echo clients, as many as are asked for.
//
//   GET /?{"perMessageDeflate": ...}         an echo server of `ws` with these options
//   POST /  {"library": "ws" | "undici", "url": ..., "options": {...}}
//                                            an echo client; the answer comes at the end of its connection
//
// A large message is echoed in three fragments, with pings between them, where the library can. The process prints its
// port, and ends with its standard input.
'use strict'

const http = require('node:http')
const undici = require('undici')
const { WebSocket, WebSocketServer } = require('ws')

const LARGE = 300 // bytes

const server = http.createServer(async (request, response) => {
  let body = ''
  for await (const part of request) body += part
  const { library, url, options } = JSON.parse(body)
  const client = library === 'ws' ? await withWs(url, options) : await withUndici(url)
  response.end(JSON.stringify(client))
})

server.on('upgrade', (request, socket, head) => {
  const options = JSON.parse(decodeURIComponent(request.url.slice('/?'.length)))
  new WebSocketServer({ ...options, noServer: true }).handleUpgrade(request, socket, head, echo)
})

function withWs (url, options) {
  return new Promise((resolve) => {
    const ws = new WebSocket(url, options)
    const errors = echo(ws)
    ws.on('close', (code) => resolve({ code, extensions: ws.extensions, errors }))
  })
}

function withUndici (url) {
  return new Promise((resolve) => {
    const ws = new undici.WebSocket(url)
    const errors = []
    ws.binaryType = 'arraybuffer'
    ws.onmessage = (event) => ws.send(event.data)
    ws.onerror = (event) => errors.push(String(event.error))
    ws.onclose = (event) => resolve({ code: event.code, extensions: ws.extensions, errors })
  })
}

function echo (ws) {
  const errors = []
  ws.on('error', (error) => errors.push(String(error)))
  ws.on('message', (data, binary) => {
    if (data.length < LARGE) return ws.send(data, { binary })
    const size = Math.ceil(data.length / 3)
    for (const at of [0, size, 2 * size]) {
      if (at) ws.ping()
      ws.send(data.subarray(at, at + size), { binary, fin: at === 2 * size })
    }
  })
  return errors
}

process.stdin.on('end', () => process.exit()).resume()
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
