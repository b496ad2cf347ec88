-- Gives money counters that this Redis does not know the ledger's sum. A counter that has been seeded in the
-- meantime is left alone, so any number of proxies may do this at once.
--
-- KEYS  1 .. n       one per counter
-- ARGV  1  now in ms; 0: this server's clock
--       2  ms for which a provisional seed holds, when the ledger did not answer; 0: the ledger did
--       3  how many ms the ledger is behind: what ended longer ago is in its sums, however late it is settled
--       then 3 each  spec as in reserve.lua; data: numbers separated by blanks
--            f  the sum          o  bucket, sum, bucket, sum, ..          g  start, sum (or nothing)
--                    then ms: what was seeded longer ago is seeded again, because it was not always in use since
-- What was charged here before the seeding may or may not be in the ledger already: the larger sum holds.

local now, provisional = tonumber(ARGV[1]), tonumber(ARGV[2])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function larger(key, field, sum)
  local have = redis.call('HGET', key, field)
  if not have or tonumber(have) < tonumber(sum) then redis.call('HSET', key, field, sum) end
end

local fill = {}

function fill.f(key, data) larger(key, 'spent', data[1] or '0') end

function fill.o(key, data)
  for i = 1, #data, 2 do larger(key, data[i], data[i + 1]) end
  local tail, head
  redis.call('HSET', key, 'spent', '0')
  for _, field in ipairs(redis.call('HKEYS', key)) do
    local bucket = tonumber(field)
    if bucket then
      redis.call('HINCRBY', key, 'spent', redis.call('HGET', key, field))
      if not tail or bucket < tail then tail = bucket end
      if not head or bucket > head then head = bucket end
    end
  end
  if tail then redis.call('HSET', key, 'tail', tail, 'head', head) end
end

function fill.g(key, data, length)
  if not data[2] then return end
  local start = tonumber(redis.call('HGET', key, 'start') or nil)
  if start and now < start + length then
    larger(key, 'spent', data[2])
  else
    redis.call('HSET', key, 'start', data[1], 'spent', data[2])
  end
end

for i = 1, #KEYS do
  local key = KEYS[i]
  local row = redis.call('HMGET', key, 'base', 'until')
  local is_stale = row[1] and tonumber(row[1]) < now - tonumber(ARGV[3 + 3 * i])
  if is_stale or not (row[1] and (not row[2] or tonumber(row[2]) > now)) then
    local kind, length, ttl = string.match(ARGV[1 + 3 * i], '^(%a) %d+ (%d+) %d+ %d+ (%d+)$')
    if provisional == 0 then
      local data = {}
      for word in string.gmatch(ARGV[2 + 3 * i], '%d+') do data[#data + 1] = word end
      if is_stale and kind == 'o' then
        -- The same spending may stand in another bucket there: by its beginning instead of its end.
        for _, field in ipairs(redis.call('HKEYS', key)) do
          if tonumber(field) then redis.call('HDEL', key, field) end
        end
        redis.call('HDEL', key, 'tail', 'head')
      end
      fill[kind](key, data, tonumber(length))
      redis.call('HDEL', key, 'until')
      redis.call('HSET', key, 'known', now - tonumber(ARGV[3]))
    else
      redis.call('HSET', key, 'until', now + provisional)
    end
    redis.call('HSET', key, 'base', now)
    ttl = tonumber(ttl)
    -- As in count.lua.
    if ttl > 1e12 then ttl = math.max(ttl - now, 3600000) end
    redis.call('PEXPIRE', key, string.format('%.0f', ttl))
  end
end
return 1
