#!lua flags=allow-oom
-- A supervisor is at work: notes when, and forgets those that have not been for long.
--
-- ARGV  the supervisor, how long silent ones are remembered (s), then silent ones known to be gone

local key, memory = P .. 'supervisors', tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', key, '-inf', NOW - memory * 1000)
for i = 3, #ARGV do redis.call('ZREM', key, ARGV[i]) end
redis.call('ZADD', key, NOW, ARGV[1])
redis.call('EXPIRE', key, memory)
