-- Raises money counters that are below the ledger's sums; lowers by what a fixed window is known to be above them.
-- Follows count.lua.
--
-- KEYS  1 .. n  one per counter
-- ARGV  1  what ended before (ms) is in the sums        2  now in ms; 0: this server's clock (see count.lua)
--       then 3 each  spec as in reserve.lua; data as in seed.lua, '' only to look; nano-USD to lower by
-- Answer: of each what is counted now, -1 where it is not seeded (then the ledger is asked when it is used); and
--         whether it was changed: 1 raised, 2 lowered, 0 neither.

local complete = tonumber(ARGV[1])
local raise = {}

function raise.f(key, data)
  local have, sum = number(redis.call('HGET', key, 'spent')), data[1] or '0'
  if have >= tonumber(sum) then return false end
  redis.call('HSET', key, 'spent', sum)
  return true
end

-- Whatever is still in the window at any later time must not be less than what the ledger has of it: so from the
-- newest bucket back, what is missing of the sum up to there is added. A request is counted when it ends and stands
-- in the ledger when it began, so the sums of the ledger are never newer.
function raise.o(key, data, spec)
  local theirs, ours, numbers = {}, {}, {}
  for i = 1, #data, 2 do theirs[tonumber(data[i])] = tonumber(data[i + 1]) end
  for _, field in ipairs(redis.call('HKEYS', key)) do
    local bucket = tonumber(field)
    if bucket then ours[bucket] = number(redis.call('HGET', key, field)) end
  end
  for bucket in pairs(theirs) do numbers[#numbers + 1] = bucket end
  for bucket in pairs(ours) do if not theirs[bucket] then numbers[#numbers + 1] = bucket end end
  table.sort(numbers, function(a, b) return a > b end)
  local sum, want, raised = 0, 0, false
  for _, bucket in ipairs(numbers) do
    if (bucket + 1) * spec.b > now - spec.a then
      sum, want = sum + (ours[bucket] or 0), want + (theirs[bucket] or 0)
      if sum < want then
        local missing = string.format('%.0f', want - sum)
        redis.call('HINCRBY', key, bucket, missing)
        redis.call('HINCRBY', key, 'spent', missing)
        local row = redis.call('HMGET', key, 'tail', 'head')
        if not row[1] or bucket < tonumber(row[1]) then redis.call('HSET', key, 'tail', bucket) end
        if not row[2] or bucket > tonumber(row[2]) then redis.call('HSET', key, 'head', bucket) end
        sum, raised = want, true
      end
    end
  end
  return raised
end

function raise.g(key, data, spec)
  if not data[2] then return false end
  local start = tonumber(redis.call('HGET', key, 'start') or nil)
  if start and now < start + spec.a then return raise.f(key, {data[2]}) end
  redis.call('HSET', key, 'start', data[1], 'spent', data[2])
  return true
end

local answer = {}
for i = 1, #KEYS do
  local key, spec, lower = KEYS[i], parse(ARGV[3 * i]), ARGV[3 * i + 2]
  local row = redis.call('HMGET', key, 'base', 'until', 'known')
  local count, change = -1, 0
  if row[1] and not row[2] then
    local data = {}
    for word in string.gmatch(ARGV[3 * i + 1], '%d+') do data[#data + 1] = word end
    if ARGV[3 * i + 1] ~= '' and raise[spec.kind](key, data, spec) then
      change = 1
      if number(row[3]) < complete then redis.call('HSET', key, 'known', complete) end
    end
    if spec.kind == 'f' and lower ~= '0' and number(redis.call('HGET', key, 'spent')) >= tonumber(lower) then
      subtract(key, 'spent', lower)
      change = 2
    end
    count = number(redis.call('HGET', key, 'spent'))
  end
  answer[2 * i - 1], answer[2 * i] = count, change
end
return answer
