#!lua
-- Records deliveries: each becomes a new event, a duplicate of a known one, or a conflict with it.
--
-- ARGV  RQ job, dedupe window (s), then per delivery: id, digest, meta, body
-- Returns, per delivery, a status and the event's id:
--   accepted   a new event, queued
--   duplicate  the same bytes again; nothing to do
--   revived    the same bytes again, and the event was dead, or its record could not be read: back in the queue
--   conflict   the same id with other bytes: a new event, flagged

local refused = refusal('open', 'queued', 'dead', 'broken', 'job', 'wake', 'LIST')
if refused then return refused end

local window = ARGV[2]
set_job(ARGV[1])

-- Writes a key of one event. What is there of another type, put there by hand, is of no use and goes.
local function write(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  redis.call('DEL', key)
  return redis.call(command, key, ...)
end

local function create(id, meta, body, conflict_of)
  write('HSET', event_key(id), 'state', 'queued', 'received', NOW, 'meta', meta, 'body', body)
  if conflict_of then redis.call('HSET', event_key(id), 'conflict_of', conflict_of) end
  redis.call('ZADD', P .. 'open', NOW, id)
  enqueue(id)
end

local function mark(id, digest)
  return write('SET', P .. 'seen:' .. id, digest, 'NX', 'GET', 'EX', window)
end

local function redeliver(id, meta, body, conflict_of)
  local key = event_key(id)
  if redis.call('ZREM', P .. 'broken', id) == 1 then
    redis.call('DEL', key)
    create(id, meta, body, conflict_of)
    redis.call('EXPIRE', P .. 'seen:' .. id, window)
    return 'revived'
  end
  local state = fields(id, 'state')[1]
  if not state then return 'duplicate' end  -- finished, and past its retention
  redis.pcall('HINCRBY', key, 'redelivered', 1)
  redis.call('HSET', key, 'redelivered_last', NOW)
  if state ~= 'dead' then return 'duplicate' end
  revive(id, state, window)
  return 'revived'
end

-- The id that other bytes get under an id that is taken: as long as any, and the same each time.
local function conflict_id(id, digest) return string.sub(redis.sha1hex(id .. digest), 1, #id) end

local function admit(id, digest, meta, body)
  local known = mark(id, digest)
  if not known then
    local kept = redis.pcall('HGET', event_key(id), 'body')
    if type(kept) ~= 'string' then
      create(id, meta, body)
      return 'accepted', id
    end
    -- Still open after the whole dedupe window: the record itself tells, now and the next time.
    redis.call('DEL', P .. 'seen:' .. id)
    known = kept == body and digest or ''
  end
  if known == digest then return redeliver(id, meta, body), id end
  local other = conflict_id(id, digest)
  if mark(other, digest) or redis.call('EXISTS', event_key(other)) == 1 then
    return redeliver(other, meta, body, id), other
  end
  create(other, meta, body, id)
  return 'conflict', other
end

local replies, totals = {}, {}
for i = 3, #ARGV, 4 do
  local status, id = admit(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  replies[#replies + 1] = status
  replies[#replies + 1] = id
  totals[status] = (totals[status] or 0) + 1
end
for status, total in pairs(totals) do count('deliveries:' .. status, total) end
return replies
