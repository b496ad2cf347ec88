-- Raises money counters that are below the ledger's sums; lowers by what a fixed window is known to be above them.
-- Follows count.lua.
--
-- KEYS  1 .. n  one per counter
-- ARGV  1  what ended longer ago than so many ms is in the sums, and nothing else
--       2  now in ms; 0: this server's clock (see count.lua)
--       then 4 each  spec as in reserve.lua; data as in seed.lua, '' only to look; nano-USD to lower by; the mark
--                    that the counter had when it was found to be so much above
-- Answer, 4 each: what is counted now, -1 where it is not seeded (then the ledger is asked when it is used);
--         whether it was changed: 1 raised, 2 lowered, 0 neither; a mark that changes with each seeding and each
--         correction, so that what several found at once is corrected once; when a from-first window began, 0 none

local complete = now - number(ARGV[1])
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

-- When a window begins is for charges to decide: the sum is of the window that began there, or it is of no use.
function raise.g(key, data, spec)
  local start = tonumber(redis.call('HGET', key, 'start') or nil)
  if not start or start ~= tonumber(data[1]) or now >= start + spec.a then return false end
  return raise.f(key, {data[2]})
end

local answer = {}
for i = 1, #KEYS do
  local key, spec = KEYS[i], parse(ARGV[4 * i - 1])
  local given, lower, mark = ARGV[4 * i], ARGV[4 * i + 1], ARGV[4 * i + 2]
  local row = redis.call('HMGET', key, 'base', 'until', 'known', 'corrected', 'start')
  local count, change, started = -1, 0, 0
  local function marked() return row[1] .. ' ' .. (redis.call('HGET', key, 'corrected') or 0) end
  if row[1] and not row[2] then
    local data, is_same = {}, marked() == mark
    for word in string.gmatch(given, '%d+') do data[#data + 1] = word end
    if given ~= '' and raise[spec.kind](key, data, spec) then
      change = 1
      if number(row[3]) < complete then redis.call('HSET', key, 'known', string.format('%.0f', complete)) end
    end
    if spec.kind == 'f' and lower ~= '0' and is_same and number(redis.call('HGET', key, 'spent')) >= tonumber(lower) then
      subtract(key, 'spent', lower)
      change = 2
    end
    if change > 0 then redis.call('HINCRBY', key, 'corrected', 1) end
    count = number(redis.call('HGET', key, 'spent'))
    if row[5] and tonumber(row[5]) + spec.a > now then started = tonumber(row[5]) end
  end
  local at = 4 * i
  answer[at - 3], answer[at - 2], answer[at - 1], answer[at] = count, change, row[1] and marked() or '', started
end
return answer
