-- Notes of counters that lack a settlement, for whichever proxy compares them with the ledger first.
--
-- KEYS  1  the owner's notes (zset: counter -> how far the ledger has to be complete, ms)
-- ARGV  1  note, forget or read     2  the counter's key; read: notes from before this moment (ms) go
--       3  how far (forget: a later note stays)     4  ttl in ms
-- Answer of read: counter, how far, .. of the last thousand; else 1

local have = ARGV[1] ~= 'read' and tonumber(redis.call('ZSCORE', KEYS[1], ARGV[2]) or nil)
if ARGV[1] == 'note' then
  if not have or have < tonumber(ARGV[3]) then redis.call('ZADD', KEYS[1], ARGV[3], ARGV[2]) end
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
elseif ARGV[1] == 'forget' then
  if have and have <= tonumber(ARGV[3]) then redis.call('ZREM', KEYS[1], ARGV[2]) end
else
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2])
  return redis.call('ZREVRANGE', KEYS[1], 0, 999, 'WITHSCORES')
end
return 1
