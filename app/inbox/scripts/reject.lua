#!lua
-- Keeps a rejected delivery for the operator, if there is room for it; the oldest ones make room.
--
-- ARGV  the bytes all may take together, how long each is kept (s), the share of maxmemory up to which any is kept,
--       then of the delivery: time received (ms), peer, fault, head, body
-- Returns 'kept', or why it is not: 'too large' | 'memory'
--
-- Each entry holds its size and the sum of all sizes up to itself. So what the stream holds is known from its first
-- and its last entry, and no counter beside it can come to differ from it. Entries removed from between the two are
-- counted until the older ones have gone: the bytes held are never more than is counted.

local KEY, OVERHEAD = P .. 'rejected', 200
local budget, seconds, share = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local received, peer, fault, head, body = unpack(ARGV, 4)
local size = OVERHEAD + #peer + #fault + #head + #body

count('refused:signature')
redis.call('XTRIM', KEY, 'MINID', string.format('%d', NOW - seconds * 1000))
if size > budget then return 'too large' end
local memory = redis.call('INFO', 'memory')
local limit = tonumber(string.match(memory, '\nmaxmemory:(%d+)'))
local used = tonumber(string.match(memory, '\nused_memory:(%d+)'))
if limit > 0 and used + size > share * limit then return 'memory' end

local function oldest() return redis.call('XRANGE', KEY, '-', '+', 'COUNT', 1)[1] end

local last = redis.call('XREVRANGE', KEY, '+', '-', 'COUNT', 1)[1]
local upto = (last and tonumber(last[2][2]) or 0) + size
local first = oldest()
while first and upto - first[2][2] + first[2][4] > budget do
  redis.call('XDEL', KEY, first[1])
  first = oldest()
end
redis.call('XADD', KEY, '*', 'upto', string.format('%d', upto), 'size', size, 'received', received, 'peer', peer,
  'fault', fault, 'head', head, 'body', body)
redis.call('EXPIRE', KEY, seconds)
return 'kept'
