-- Keeps a command's outcome if there is none; answers the one that was there.
-- KEYS[1] is the outcome. ARGV: outcome, time to live.
local kept = redis.call('GET', KEYS[1])
if kept then return kept end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
