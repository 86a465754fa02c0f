// mock_model.mjs PORT LOG: a model on loopback that real agent programs can talk to.
//
// Speaks as much of the Anthropic Messages, OpenAI Responses, OpenAI chat and Gemini streaming APIs
// as the programs need. It answers word by word over DELAY seconds (environment). A prompt with the
// word EDIT makes it ask for hello.txt to be written, RUN for a command to be run, so that the program asks its
// human; SLOW makes an answer last twenty times as long. Every request that brings a prompt is a line of JSON in LOG:
// {"api", "text", "said"}, where said is all that the human has said in this conversation; what programs ask for
// themselves, such as a title, is answered and not logged.
import { createServer } from 'node:http';
import { appendFileSync } from 'node:fs';

const [port, log] = process.argv.slice(2);
const delay = Number(process.env.DELAY ?? 1) * 1000;
const WORDS = 'This is the answer of a model that thinks of nothing in particular. ANSWERED'.split(' ');
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const COMMAND = 'echo hi && touch ran.txt';

// What is to be answered: {words}, or {tool: 'edit' or 'run'}; `own` are requests of the program itself.
function plan(text, afterTool, own) {
  if (own) return { words: ['Title'] };
  if (afterTool) return { words: ['The', 'tool', 'has', 'run.', 'ANSWERED'] };
  if (/\bEDIT\b/.test(text)) return { tool: 'edit' };
  return /\bRUN\b/.test(text) ? { tool: 'run' } : { words: WORDS, slow: /\bSLOW\b/.test(text) };
}

async function* spoken({ words, slow }) {
  for (const word of words) {
    await pause((delay * (slow ? 20 : 1)) / words.length);
    yield word + ' ';
  }
}

// Programs put reminders of their own beside what the human said.
const isOwn = (text) => /^\s*<(system-reminder|local-command|command-|environment_context|user_instructions|session_context)/.test(text);
const textsOf = (content, key) => (typeof content === 'string' ? [content]
  : content.map((part) => part[key]).filter((text) => typeof text === 'string')).filter((text) => !isOwn(text));
const saidIn = (list, of) => list.filter((item) => item.role === 'user').flatMap(of);
const lastOf = (list, role) => [...list].reverse().find((item) => item.role === role);
const cwdOf = (body) => (JSON.stringify(body).match(/[Ww]orking directory: ([^\\"\n]+)/) ?? [])[1] ?? '.';

function events(response) {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  let open = true;
  response.on('close', () => { open = false; });
  return (data, name) => {
    if (open) response.write((name ? `event: ${name}\n` : '') + `data: ${JSON.stringify(data)}\n\n`);
  };
}

const asJson = (response, data) => {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify(data));
};

// What a call is charged: the n-th in numbers of its own, which are written down. `own`: the program asks for itself.
let calls = 0;
function charge(own) {
  const n = ++calls;
  const charged = { input: 10 + n, written: 1000 + n, cached: 10000 + n, output: 100 + n, own };
  appendFileSync(`${log}.charges`, JSON.stringify(charged) + '\n');
  return charged;
}

// A prompt with `-limit ` in it is refused for a usage limit, as these providers do it; one of OpenAI's ends in two hours.
const refuses = (texts) => /-limit /.test(texts.at(-1) ?? '');
function refuse(response, error) {
  response.writeHead(429, { 'content-type': 'application/json' });
  response.end(JSON.stringify(error));
}

async function anthropic(body, response, note) {
  const user = lastOf(body.messages, 'user');
  const blocks = typeof user.content === 'string' ? [{ type: 'text', text: user.content }] : user.content;
  const texts = textsOf(blocks, 'text');
  const said = saidIn(body.messages, (message) => textsOf(message.content, 'text'));
  const afterTool = texts.length === 0 && blocks.some((block) => block.type === 'tool_result');
  const own = !(body.tools ?? []).some((tool) => tool.name === 'Bash');
  if (!own && !afterTool) note('anthropic', texts, said);
  const answer = plan(texts.at(-1) ?? '', afterTool, own); // behind what was said before an interruption
  if (!own && refuses(texts)) return refuse(response, { type: 'error', error: { type: 'rate_limit_error', message: 'too much' } });
  const charged = charge(own);
  const input = { input_tokens: charged.input, cache_creation_input_tokens: charged.written, cache_read_input_tokens: charged.cached };
  const usage = { ...input, output_tokens: charged.output };
  const message = { id: `msg_${Date.now()}_${charged.output}`, type: 'message', role: 'assistant', model: body.model, content: [],
    stop_reason: null, stop_sequence: null, usage: { ...input, output_tokens: 1 } };
  if (!body.stream) {
    return asJson(response, { ...message, usage, content: [{ type: 'text', text: 'Title' }], stop_reason: 'end_turn' });
  }
  const send = events(response);
  const tell = (data) => send(data, data.type);
  tell({ type: 'message_start', message });
  if (answer.tool) {
    const [name, args] = answer.tool === 'edit' ? ['Write', { file_path: `${cwdOf(body)}/hello.txt`, content: 'hello\n' }]
      : ['Bash', { command: COMMAND, description: 'Say hi' }];
    tell({ type: 'content_block_start', index: 0, content_block: { type: 'tool_use', id: `toolu_${Date.now()}`, name, input: {} } });
    tell({ type: 'content_block_delta', index: 0, delta: { type: 'input_json_delta', partial_json: JSON.stringify(args) } });
  } else {
    tell({ type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } });
    for await (const text of spoken(answer)) tell({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text } });
  }
  tell({ type: 'content_block_stop', index: 0 });
  tell({ type: 'message_delta', delta: { stop_reason: answer.tool ? 'tool_use' : 'end_turn', stop_sequence: null }, usage });
  tell({ type: 'message_stop' });
  response.end();
}

const PATCH = '*** Begin Patch\n*** Add File: hello.txt\n+hello\n*** End Patch';

// The call by which this version of the program edits or runs: asked for, it says how by its tools.
function toolCall(tools, tool) {
  const call = { call_id: `call_${Date.now()}` };
  if (tool === 'edit' && tools.includes('apply_patch')) return { ...call, type: 'custom_tool_call', id: 'ctc_1', name: 'apply_patch', input: PATCH };
  const command = tool === 'edit' ? `apply_patch <<'EOF'\n${PATCH}\nEOF` : COMMAND;
  const name = ['exec_command', 'shell_command', 'shell'].find((tool) => tools.includes(tool)) ?? 'shell';
  const rights = { sandbox_permissions: 'require_escalated', justification: `to ${tool}`, with_escalated_permissions: true };
  const how = { exec_command: { cmd: command }, shell_command: { command }, shell: { command: ['bash', '-lc', command] } }[name];
  return { ...call, type: 'function_call', id: 'fc_1', name, arguments: JSON.stringify({ ...how, ...rights }) };
}

async function responses(body, response, note) {
  const input = Array.isArray(body.input) ? body.input : [{ role: 'user', content: body.input }];
  const afterTool = /_output$/.test(input.at(-1).type ?? '');
  const tools = (body.tools ?? []).map((tool) => tool.name ?? tool.type);
  const own = tools.length === 0;
  const texts = textsOf(lastOf(input, 'user').content, 'text');
  if (!own && !afterTool) note('responses', texts, saidIn(input, (item) => textsOf(item.content, 'text')));
  if (!own && refuses(texts)) {
    return refuse(response, { error: { type: 'usage_limit_reached', message: 'The usage limit has been reached', plan_type: 'plus',
      resets_at: Math.floor(Date.now() / 1000) + 7200, resets_in_seconds: 7200 } });
  }
  const answer = plan(texts.join('\n'), afterTool, own);
  const send = events(response);
  const tell = (data) => send(data, data.type);
  tell({ type: 'response.created', response: { id: 'resp_1' } });
  if (answer.tool) {
    tell({ type: 'response.output_item.done', output_index: 0, item: toolCall(tools, answer.tool) });
  } else {
    const item = { type: 'message', role: 'assistant', id: 'msg_1', content: [] };
    let all = '';
    tell({ type: 'response.output_item.added', output_index: 0, item });
    for await (const delta of spoken(answer)) {
      all += delta;
      tell({ type: 'response.output_text.delta', item_id: 'msg_1', output_index: 0, content_index: 0, delta });
    }
    tell({ type: 'response.output_item.done', output_index: 0, item: { ...item, content: [{ type: 'output_text', text: all }] } });
  }
  const { input: given, cached, output: written } = charge(own);
  tell({ type: 'response.completed', response: { id: 'resp_1', usage: { input_tokens: given + cached,
    input_tokens_details: { cached_tokens: cached }, output_tokens: written, output_tokens_details: { reasoning_tokens: 7 },
    total_tokens: given + cached + written } } });
  response.end();
}

async function chat(body, response, note) {
  const afterTool = body.messages.at(-1).role === 'tool';
  const own = (body.tools ?? []).length === 0;
  const texts = textsOf(lastOf(body.messages, 'user').content, 'text');
  if (!own && !afterTool) note('chat', texts, saidIn(body.messages, (message) => textsOf(message.content, 'text')));
  const answer = plan(texts.join('\n'), afterTool, own);
  const frame = { id: 'cc_1', object: 'chat.completion.chunk', created: 1, model: body.model };
  const charged = charge(own);
  const usage = { prompt_tokens: charged.input + charged.cached, prompt_tokens_details: { cached_tokens: charged.cached },
    completion_tokens: charged.output, total_tokens: charged.input + charged.cached + charged.output };
  if (!body.stream) {
    return asJson(response, { ...frame, object: 'chat.completion', usage,
      choices: [{ index: 0, message: { role: 'assistant', content: 'Title' }, finish_reason: 'stop' }] });
  }
  const send = events(response);
  const tell = (delta, reason = null, more = {}) => send({ ...frame, choices: [{ index: 0, delta, finish_reason: reason }], ...more });
  tell({ role: 'assistant', content: '' });
  if (answer.tool) {
    const [name, args] = answer.tool === 'edit' ? ['write', { filePath: `${cwdOf(body.messages[0])}/hello.txt`, content: 'hello\n' }]
      : ['bash', { command: COMMAND, description: 'Say hi' }];
    tell({ tool_calls: [{ index: 0, id: `call_${Date.now()}`, type: 'function', function: { name, arguments: JSON.stringify(args) } }] });
  } else {
    for await (const content of spoken(answer)) tell({ content });
  }
  tell({}, answer.tool ? 'tool_calls' : 'stop', { usage });
  response.end('data: [DONE]\n\n');
}

async function gemini(body, response, note, url) {
  const user = lastOf(body.contents, 'user');
  const afterTool = user.parts.some((part) => part.functionResponse);
  const own = !(body.tools ?? []).some((tool) => tool.functionDeclarations?.length);
  const texts = textsOf(user.parts, 'text');
  const chunk = (parts, last) => ({ candidates: [{ content: { role: 'model', parts }, index: 0, ...(last ? { finishReason: 'STOP' } : {}) }],
    usageMetadata: { promptTokenCount: 1, candidatesTokenCount: 9, totalTokenCount: 10 } });
  if (!/stream/.test(url)) {
    const verdict = JSON.stringify({ reasoning: 'none', next_speaker: 'user', complexity_reasoning: 'none', complexity_score: 10, model_choice: 'pro' });
    return asJson(response, chunk([{ text: verdict }], true));
  }
  if (!own && !afterTool) note('gemini', texts, saidIn(body.contents, (content) => textsOf(content.parts, 'text')));
  const answer = plan(texts.join('\n'), afterTool, own);
  const send = events(response);
  if (answer.tool) {
    const [name, args] = answer.tool === 'edit' ? ['write_file', { file_path: 'hello.txt', content: 'hello\n' }]
      : ['run_shell_command', { command: COMMAND, description: 'Say hi' }];
    send(chunk([{ functionCall: { name, args } }], true));
  } else {
    for await (const text of spoken(answer)) send(chunk([{ text }]));
    send(chunk([{ text: '.' }], true));
  }
  response.end();
}

const routes = [[/\/v1\/messages/, anthropic], [/\/responses/, responses], [/chat\/completions/, chat], [/enerateContent/, gemini]];

const server = createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', async () => {
    const note = (api, texts, said) => appendFileSync(log, JSON.stringify({ api, text: texts.join('\n'), said }) + '\n');
    const route = routes.find(([pattern]) => pattern.test(request.url));
    try {
      if (/count_?tokens/i.test(request.url)) asJson(response, { input_tokens: 1, totalTokens: 1 });
      else if (request.method === 'POST' && route) await route[1](JSON.parse(Buffer.concat(pieces).toString() || '{}'), response, note, request.url);
      else asJson(response, { object: 'list', data: [{ id: 'mock', object: 'model' }], models: [] });
    } catch (error) {
      appendFileSync(`${log}.errors`, `${request.url} ${error.stack}\n`);
      response.destroy();
    }
  });
});
server.listen(Number(port), '127.0.0.1', () => console.log('listening'));
