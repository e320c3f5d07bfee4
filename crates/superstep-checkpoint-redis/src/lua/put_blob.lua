-- Writes a blob. One whose time to live was lifted stays so.
-- KEYS: blob, index of the thread's blobs (score: when the blob goes away; of one
-- that stays 2^52 and the last record that refers to it).
-- ARGV: bytes, time to live, id.
if redis.call('PTTL', KEYS[1]) == -1 then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[2], 'GT', string.format('%.0f', now + ARGV[2]), ARGV[3])
-- Without a blob that lives on, the index goes when its youngest blob does.
if redis.call('ZCOUNT', KEYS[2], '4503599627370496', '+inf') == 0 then
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
return 0
