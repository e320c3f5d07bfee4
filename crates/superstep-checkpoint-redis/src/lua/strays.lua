-- A page of one index of a shard: its members that their thread does not have.
-- KEYS[1] is the index. ARGV: cursor, how many to look at, its kind (w(atch), d(ue), q(uestions),
-- l(ist)), the keys of threads and of their open things without id, and for a list how the row of
-- a thread in it begins. Those keys are in the slot of KEYS[1], and only read.
local kind, thread, own, begins = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local found = redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local rows = {}
for i = 1, #found[2], 2 do
  local member, has = found[2][i], false
  if kind == 'w' then
    has = redis.call('HEXISTS', thread .. member, 'w') == 1
  elseif kind == 'l' then
    local row = redis.call('HGET', thread .. member, 'i')
    has = row and string.sub(row, 1, #begins) == begins
  else
    local at = string.find(member, '\0\1', 1, true)
    if at then
      local name = string.gsub(string.sub(member, 1, at - 1), '%z\2', '\0')
      has = redis.call('ZSCORE', own .. string.sub(member, at + 2), kind .. name)
    end
  end
  if not has then rows[#rows + 1] = member end
end
return { found[1], rows }
