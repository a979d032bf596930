// Lets OpenClaw's own code activate configurations one after another: node activate.mjs DIST < questions > answers. DIST is the
// folder "dist" of the npm package; modules and exports are found by what is in them. Each line of the input is {config, env,
// fresh}, where fresh starts anew, and each line of the output {ok, error, events, warnings, config}.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { createInterface } from "node:readline";

const dist = process.argv[2];
const texts = readdirSync(dist).filter((n) => n.endsWith(".mjs")).map((name) => ({ name, text: readFileSync(join(dist, name), "utf8") }));

async function find(declaration, symbol) {
  for (const { name, text } of texts) {
    if (!text.includes(declaration)) continue;
    const module = await import(pathToFileURL(join(dist, name)));
    const alias = text.match(new RegExp(`[{,]\\s*${symbol} as (\\w+)`))?.[1] ?? symbol;
    if (alias in module) return module[alias];
  }
  throw new Error(`no ${symbol}`);
}

const create = await find("function createRuntimeSecretsActivator(", "createRuntimeSecretsActivator");
const active = await find("function getActiveSecretsRuntimeSnapshotState(", "getActiveSecretsRuntimeSnapshotState");
const clear = await find("function clearSecretsRuntimeSnapshotState(", "clearSecretsRuntimeSnapshotState");

let events = [];
const log = (text) => events.push(text);
const logger = { info: log, warn: log, error: log, debug() {} };
const emit = (code) => events.push(`event ${code}`);
let activate;

for await (const line of createInterface({ input: process.stdin })) {
  const { config, env, fresh } = JSON.parse(line);
  if (fresh || !activate) {
    clear();
    activate = create({ logSecrets: logger, emitStateEvent: emit });
  }
  events = [];
  for (const name of ["A", "B", "C", "T"]) delete process.env[name];
  Object.assign(process.env, env);
  const answer = { ok: true, error: "", warnings: 0 };
  try {
    const reason = active() ? "reload" : "startup";
    const prepared = await activate(config, { reason, activate: true, env: process.env, includeAuthStoreRefs: false });
    answer.warnings = prepared.warnings.length;
  } catch (e) {
    Object.assign(answer, { ok: false, error: e.message });
  }
  process.stdout.write(JSON.stringify({ ...answer, events, config: active()?.config ?? null }) + "\n");
}
process.exit(0);
