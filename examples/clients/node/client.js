#!/usr/bin/env node
// Asks a sidecar for credentials, with what Node.js has.
//
//     node client.js cred://conf//db/password
'use strict';

const http = require('node:http');
const readline = require('node:readline');

const socketPath = process.env.CREDRESOLVE_SOCKET || `${process.env.XDG_RUNTIME_DIR}/credresolve/sock`;

// open sends one request and gives its answer, whose body is a stream.
function open(method, path, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? undefined : JSON.stringify(body);
    if (text !== undefined) headers['Content-Type'] = 'application/json';
    http.request({ socketPath, method, path, headers }, resolve).on('error', reject).end(text);
  });
}

// ask gives status, headers and answer of one request.
async function ask(...request) {
  const response = await open(...request);
  let text = '';
  for await (const part of response) text += part;
  return { status: response.statusCode, headers: response.headers, answer: text ? JSON.parse(text) : undefined };
}

// parts gives the map of a short form cred://provider/id#field.
function parts(ref) {
  const [, provider, id, field] = ref.match(/^cred:\/\/([^/]+)\/([^#]*)(?:#(.*))?$/);
  return { provider, id: decodeURIComponent(id), ...(field && { field: decodeURIComponent(field) }) };
}

async function main(refs) {
  const query = `ref=${encodeURIComponent(refs[0])}`;
  const first = await ask('GET', `/v1/resolve?${query}`);
  if (first.status !== 200) {
    console.error(`${first.answer.error.code}: ${first.answer.error.message}`);
    return 1;
  }
  console.log(first.answer.value);

  // What is not changed is not sent again.
  const again = await ask('GET', `/v1/resolve?${query}`, undefined, { 'If-None-Match': first.headers.etag });
  console.log(again.status === 304 ? 'unchanged' : 'changed');

  const all = await ask('POST', '/v1/resolve', { refs: refs.map(parts) });
  const there = all.answer.results.filter((result) => !result.error).length;
  console.log(`${there} of ${refs.length} are there`);

  // Server-sent events: how the ref stands, then each change.
  const stream = await open('GET', `/v1/watch?${query}`);
  for await (const line of readline.createInterface({ input: stream })) {
    if (!line.startsWith('data: ')) continue;
    const { revision } = JSON.parse(line.slice('data: '.length));
    if (revision && revision !== first.answer.revision) {
      console.log('it changed');
      stream.destroy();
      return 0;
    }
  }
  return 1;
}

main(process.argv.slice(2)).then((status) => { process.exitCode = status; });
