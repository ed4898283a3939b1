#!lua flags=allow-oom
-- Takes out of events what they say, for good: bodies, errors, results, headers. Who they are and when they came stays,
-- so that a redelivery is still known. Those that are not done are closed: nobody works on them any more.
--
-- ARGV  RQ job, dedupe window (s), retention (s), 'discard' (dead ones only) | 'erase', then ids, each followed by
--       what stays of its meta
-- Returns, per id, the state it was in ('' if there is no record); a running one is left alone, and so is one that
-- is not dead if it was to be discarded
local refused = refusal('open', 'queued', 'retrying', 'done', 'dead', 'job', 'wake', 'LIST')
if refused then return refused end

local window, retention, erases = ARGV[2], tonumber(ARGV[3]), ARGV[4] == 'erase'
set_job(ARGV[1])

local KEPT = {}
for _, name in ipairs({ 'state', 'said', 'received', 'meta', 'body', 'token', 'attempt', 'worker', 'started', 'redelivered',
  'redelivered_last', 'conflict_of', 'emptied', 'discarded' }) do KEPT[name] = true end

-- A line of the history without what its errors say.
local function bare(line)
  local known, entry = pcall(cjson.decode, line)
  if not known or type(entry) ~= 'table' then return nil end
  local kept = {}
  for _, name in ipairs({ 'attempt', 'started', 'ended', 'worker', 'outcome', 'handlers' }) do kept[name] = entry[name] end
  if type(entry.error) == 'table' then kept.error = { type = entry.error.type, message = '' } end
  return cjson.encode(kept)
end

local function empty(id, meta)
  local key = event_key(id)
  for _, name in ipairs(redis.call('HKEYS', key)) do
    local line = string.sub(name, 1, 8) == 'attempt:' and bare(redis.call('HGET', key, name))
    if line then
      redis.call('HSET', key, name, line)
    elseif not KEPT[name] and string.sub(name, 1, 7) ~= 'replay:' then
      redis.call('HDEL', key, name)
    end
  end
  redis.call('HSET', key, 'body', '', 'meta', meta, 'emptied', NOW)
  redis.call('DEL', P .. 'answers:' .. id)
end

local states = {}
for i = 5, #ARGV, 2 do
  local id = ARGV[i]
  local record = fields(id, 'state', 'received', 'turn')
  local state = record[1] or ''
  if state == 'dead' or (erases and (state == 'done' or state == 'queued' or state == 'retrying')) then
    if state ~= 'done' then
      redis.call('ZREM', P .. state, id)
      redis.call('HSET', event_key(id), 'discarded', NOW)
      close(id, 'done', retention, tonumber(record[2]) or NOW)
      pass_turn(id, record[3])
      expire_markers(id, window)
      count('events:discarded')
    end
    empty(id, ARGV[i + 1])
  end
  states[#states + 1] = state
end
return states
