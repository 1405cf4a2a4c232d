// What a program with the `openai` package of JavaScript does: node openai_client.mjs URL KEY. Prints JSON.
import OpenAI from "openai";

const [url, key] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0 });
const messages = [{ role: "user", content: "Which colour is the door?" }];
const told = {};

told.models = [];
for await (const model of client.models.list()) told.models.push([model.id, model.parent ?? null]);

const whole = await client.chat.completions.create({ model: "tuned", messages });
told.whole = whole.choices[0].message.content;
told.usage = whole.usage;

told.streamed = "";
const stream = await client.chat.completions.create({ model: "tuned", messages, stream: true });
for await (const chunk of stream) told.streamed += chunk.choices[0]?.delta?.content ?? "";

const cards = await client.chat.completions.create({ model: "cards", messages });
told.sources = cards.rung.sources.map((source) => source.id);

const schema = {
  type: "object",
  properties: { colour: { type: "string", enum: ["red", "green"] } },
  required: ["colour"],
  additionalProperties: false,
};
const held = await client.chat.completions.parse({
  model: "tiny",
  messages,
  max_tokens: 48,
  response_format: { type: "json_schema", json_schema: { name: "card", strict: true, schema } },
});
told.parsed = JSON.parse(held.choices[0].message.content);

async function fault(ask) {
  try {
    await ask();
    return "none";
  } catch (error) {
    return `${error.constructor.name} ${error.status} ${error.code}`;
  }
}

told.unknown = await fault(() => client.chat.completions.create({ model: "nobody", messages }));
told.empty = await fault(() => client.chat.completions.create({ model: "tuned", messages: [] }));
const stranger = new OpenAI({ baseURL: url, apiKey: "wrong", maxRetries: 0 });
told.stranger = await fault(() => stranger.models.list());

// A stream that is given up: the server must not mind.
const given_up = await client.chat.completions.create({ model: "tiny", messages, max_tokens: 1500, stream: true });
for await (const chunk of given_up) break;

console.log(JSON.stringify(told));
