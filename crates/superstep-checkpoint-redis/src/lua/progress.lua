-- A task's progress in its round: its entries from the first up to one that is missing.
-- KEYS[1] is the round's progress. ARGV[1] is the task.
local entries = {}
while true do
  local entry = redis.call('HGET', KEYS[1], #entries .. ':' .. ARGV[1])
  if not entry then return entries end
  entries[#entries + 1] = entry
end
