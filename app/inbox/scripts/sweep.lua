#!lua flags=allow-oom
-- Heals and tidies, at most once per interval whoever asks: every unfinished event is either in line,
-- leased, or waiting for its time; what has been forgotten on the way is found here (P2).
--
-- ARGV  RQ job, interval (ms), patience (ms), most of each kind, max attempts, retention (s)
-- Returns {due, expired, lost, trimmed}, or an empty list if it is not yet time.

local interval, patience, most = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local max_attempts, retention = tonumber(ARGV[5]), tonumber(ARGV[6])

local since = NOW - tonumber(redis.call('GET', P .. 'swept') or 0)
if since >= 0 and since < interval then return {} end
redis.call('SET', P .. 'swept', NOW)
set_job(ARGV[1])

-- The clock was set back: what waits for its time would wait for so much longer, and so would a lease.
-- (A retry put off in the second since then comes early.)
local function follow_clock_back(by)
  for _, id in ipairs(redis.call('ZRANGE', P .. 'retrying', '(' .. NOW, '+inf', 'BYSCORE')) do
    redis.call('ZINCRBY', P .. 'retrying', -by, id)
  end
  for _, id in ipairs(redis.call('ZRANGE', P .. 'running', 0, -1)) do  -- as many as there are workers
    local started = tonumber(redis.call('HGET', event_key(id), 'started') or 0)
    if started > NOW then redis.call('ZINCRBY', P .. 'running', -by, id) end
  end
end
if since < 0 then follow_clock_back(-since) end

local function until_(zset, limit) return redis.call('ZRANGE', P .. zset, '-inf', limit, 'BYSCORE', 'LIMIT', 0, most) end

-- Workers that vanished without a word: their leases have run out.
local expired = until_('running', NOW)
for _, id in ipairs(expired) do crash(id, 'The lease ran out: the worker vanished or hung.', max_attempts, retention) end

local due = until_('retrying', NOW)
for _, id in ipairs(due) do requeue(id, 'retrying') end

-- The RQ list is first in, first out: what was queued before its head and is still "queued" has left
-- the list without being leased. Found without reading the list, however long it is.
local horizon = NOW - patience
for _ = 1, most do
  local head = redis.call('LINDEX', LIST, 0)
  if not head then break end
  local queued_at = tonumber(redis.call('ZSCORE', P .. 'queued', head))
  if not queued_at and redis.call('HGET', event_key(head), 'state') == 'queued' then
    redis.call('ZADD', P .. 'queued', NOW, head)  -- its index was deleted by hand
    queued_at = NOW
  end
  if queued_at then
    -- A head from the future was queued before the clock was set back: the order tells nothing until it is through.
    horizon = queued_at > NOW and 0 or math.min(horizon, queued_at - 1)
    break
  end
  redis.call('LPOP', LIST)  -- an instruction whose event needs nothing any more
  redis.call('DEL', RQ .. ':job:' .. head)
end
local lost = until_('queued', horizon)
for _, id in ipairs(lost) do enqueue(id) end

-- Index entries of records that have expired.
local trimmed = 0
for _, state in ipairs({ 'done', 'dead' }) do
  local gone = until_(state, NOW - retention * 1000 - 1000)
  if #gone > 0 then trimmed = trimmed + redis.call('ZREM', P .. state, unpack(gone)) end
  for _, id in ipairs(state == 'dead' and gone or {}) do  -- a worker of a release before left it its whole life
    if redis.call('EXISTS', event_key(id)) == 0 then redis.call('DEL', P .. 'said:' .. id) end
  end
end

return { #due, #expired, #lost, trimmed }
