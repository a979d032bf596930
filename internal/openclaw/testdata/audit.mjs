// Lets OpenClaw's own code audit homes: node audit.mjs DIST < questions > answers. DIST is the folder "dist" of the npm package;
// modules and exports are found by what is in them. Each line of the input is {env, cwd, allowExec, store, profiles}: variables, among
// them OPENCLAW_STATE_DIR, entries for the team's store and for the stores of agents, which are written first. Each line of the output
// is the report.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { createInterface } from "node:readline";

const dist = process.argv[2];
const texts = readdirSync(dist).filter((n) => n.endsWith(".mjs")).map((name) => ({ name, text: readFileSync(join(dist, name), "utf8") }));

async function find(declaration, symbol) {
  for (const { name, text } of texts) {
    if (!text.includes(declaration)) continue;
    const alias = text.match(new RegExp(`[{,]\\s*${symbol}(?: as (\\w+))?\\s*[,}]`, "g"))?.at(-1)?.match(/ as (\w+)/)?.[1] ?? symbol;
    return (await import(pathToFileURL(join(dist, name))))[alias];
  }
  throw new Error(`no ${symbol}`);
}

const audit = await find("async function runSecretsAudit(", "runSecretsAudit");
const writeProfiles = await find("function writePersistedAuthProfileStoreRaw(", "writePersistedAuthProfileStoreRaw");
const writeStore = await find("function writeSecretStoreEntry(", "writeSecretStoreEntry");

for await (const line of createInterface({ input: process.stdin })) {
  const { env, allowExec, store, profiles } = JSON.parse(line);
  let answer;
  try {
    for (const name of Object.keys(process.env)) delete process.env[name];
    Object.assign(process.env, env);
    for (const [name, value] of Object.entries(store ?? {}))
      writeStore({ scope: { kind: "team" }, name, value, kind: "secret", database: { env: process.env } });
    for (const [agent, value] of Object.entries(profiles ?? {})) writeProfiles(value, join(env.OPENCLAW_STATE_DIR, "agents", agent, "agent"));
    answer = await audit({ allowExec });
  } catch (e) {
    answer = { error: String(e.stack) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);
