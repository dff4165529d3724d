#!/bin/sh
# In aimock's list of batches a batch never ends. Only retrieving that batch by its id updates its state; two lists in
# between show the state at creation. A client that polls many batches with the list, one call for all, waits forever.
# Exits 0 while that is so, 1 if it has changed. Needs node and npm.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
npm install --silent --no-audit --no-fund --prefix "$dir" @copilotkit/aimock@1.43.0
mkdir "$dir/fixtures"
echo '{"llm": {"fixtures": "./fixtures"}}' >"$dir/aimock.json"
echo '{"fixtures": [{"match": {"userMessage": "a"}, "response": {"content": "b"}}]}' >"$dir/fixtures/all.json"
cat >"$dir/look.mjs" <<'JS'
import { spawn } from "node:child_process";

const folder = process.argv[2];
const script = `${folder}/node_modules/@copilotkit/aimock/dist/aimock-cli.js`;
const server = spawn(process.execPath, [script, "-c", "aimock.json", "-p", "0"], { cwd: folder });
const address = await new Promise((found) =>
  server.stdout.on("data", (text) => /http:\S+/.test(text) && found(/http:\S+/.exec(text)[0])));
const get = async (path) => (await fetch(`${address}/v1${path}`)).json();

const line = { custom_id: "1", method: "POST", url: "/v1/chat/completions",
  body: { model: "m", messages: [{ role: "user", content: "a" }] } };
const form = new FormData();
form.append("purpose", "batch");
form.append("file", new Blob([JSON.stringify(line) + "\n"]), "requests.jsonl");
const file = await (await fetch(`${address}/v1/files`, { method: "POST", body: form })).json();
const made = { input_file_id: file.id, endpoint: line.url, completion_window: "24h" };
const headers = { "content-type": "application/json" };
const batch = await (await fetch(`${address}/v1/batches`, { method: "POST", headers, body: JSON.stringify(made) })).json();

const listed = [];
for (let look = 0; look < 5; look++) listed.push((await get("/batches")).data[0].status);
const retrieved = [];
for (let look = 0; look < 2; look++) retrieved.push((await get(`/batches/${batch.id}`)).status);
server.kill();
console.log("aimock 1.43.0");
console.log("expected: the list shows a batch move from validating to completed, as asking for it by itself does");
console.log(`seen:     in the list ${listed.join(", ")}; by itself ${retrieved.join(", ")}`);
process.exit(new Set(listed).size === 1 && retrieved[1] === "completed" ? 0 : 1);
JS
node "$dir/look.mjs" "$dir"
