#!/usr/bin/env node
// Answers credresolve with the secrets of a JSON file: adapter.js FILE.
"use strict";
const { readFileSync } = require("node:fs");

function fail(why) {
  console.error(why); // never the error of JSON.parse, which quotes what it could not read
  process.exit(1);
}

let request, secrets;
try {
  request = JSON.parse(readFileSync(0, "utf8"));
} catch {
  fail("standard input is not JSON");
}
if (request?.protocolVersion !== 1 || !Array.isArray(request.ids)) {
  fail("standard input is not a request of protocol version 1");
}
try {
  secrets = JSON.parse(readFileSync(process.argv[2], "utf8"));
} catch {
  fail("the file of secrets cannot be read");
}
// Without a prototype an id such as __proto__ is a key like any other.
const values = Object.create(null);
const errors = Object.create(null);
for (const id of request.ids) {
  if (Object.hasOwn(secrets, id)) {
    values[id] = secrets[id];
  } else {
    errors[id] = { code: "NOT_FOUND" };
  }
}
process.stdout.write(JSON.stringify({ protocolVersion: 1, values, errors }));
