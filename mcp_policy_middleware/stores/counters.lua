-- Takes the charges of one call instead of those that it holds, all or none, in one step (PL-5).
--
-- KEYS  1 the marker of the store; 2 the record of the reservation to be made; 3 the record of the one that is held
--       (where one of the two is missing, the other again); 4... the counters, each once.
-- ARGV  1 `look` or `take`; 2 the generation of what is held; 3 numbers, as doubles:
--         the time in microseconds since the Unix epoch, below 0 for the server's own; how many charges are held;
--         for each of those the number of its counter among the keys, the end of its window (0: as the record
--         says), and its amount;
--         for each charge of the call the number of its counter, its amount, its limit, the length and the offset of
--         its window in seconds (a length of 0: months), and 1 where the window slides.
-- Gives 1, the generation, and for each charge the end of its window and the total before it;
--    or 0, the index of the charge that does not fit, the counter's start, end, used and before, and the time.
--
-- Everything is worked out before anything is written: an error halfway would not be undone. Amounts are whole
-- millionths, at most 9,007,199,254,000,000 < 2^53, so that doubles hold them exactly. A counter is six doubles:
-- starts, ends, used, before, limit, until; times are in seconds since the Unix epoch. The marker is the generation,
-- a space, and the latest time that was seen. A record is the generation and what was replied, or `released`.

local MICRO = 1000000
local GRACE = 60000    -- ms that a closed window is kept, in case the server's clock goes back
local REMEMBER = 60000 -- ms that a reservation's record is kept, in case its request is sent again
local floor, fmod = math.floor, math.fmod

-- The first of the month of a moment, or some months later. Counts in years that begin in March, so that
-- the leap day is a year's last: the civil calendar algorithms of Howard Hinnant.
local function first_of_month(second, later)
  local day = floor(second / 86400) + 719468
  local era = floor(day / 146097)
  day = day - era * 146097
  local year = floor((day - floor(day / 1460) + floor(day / 36524) - floor(day / 146096)) / 365)
  day = day - (365 * year + floor(year / 4) - floor(year / 100))
  local months = (era * 400 + year) * 12 + floor((5 * day + 2) / 153) + later
  year = floor(months / 12)
  era = floor(year / 400)
  year = year - era * 400
  day = 365 * year + floor(year / 4) - floor(year / 100) + floor((153 * (months % 12) + 2) / 5)
  return (era * 146097 + day - 719468) * 86400
end

local function window_end(charge, second)
  if charge.seconds == 0 then return first_of_month(second, 1) end
  return (floor((second - charge.offset) / charge.seconds) + 1) * charge.seconds + charge.offset
end

local function window_start(charge, ends)
  if charge.seconds == 0 then return first_of_month(ends - 1, 0) end
  return ends - charge.seconds
end

-- amount * part / whole, rounded up, exact though the product is beyond 2^53; part <= whole < 2^42.
local function share(amount, part, whole)
  local rest = fmod(amount, whole)
  local shares = (amount - rest) / whole * part
  local quotient, remainder = 0, 0
  for bit = 41, 0, -1 do
    quotient, remainder = quotient * 2, remainder * 2
    if floor(part / 2 ^ bit) % 2 == 1 then remainder = remainder + rest end
    while remainder >= whole do
      quotient, remainder = quotient + 1, remainder - whole
    end
  end
  if remainder > 0 then quotient = quotient + 1 end
  return shares + quotient
end

local found = redis.call('MGET', unpack(KEYS))
if not found[1] then return redis.error_reply('NOMARKER the store holds no marker') end
local generation, latest = string.sub(found[1], 1, 8), tonumber(string.sub(found[1], 10))
local given = {struct.unpack('<' .. string.rep('d', #ARGV[3] / 8), ARGV[3])} -- and, last, where it stopped reading
local now = given[1]
if now < 0 then
  local time = redis.call('TIME')
  now = time[1] * MICRO + time[2]
end
local taking = ARGV[1] == 'take'
local first, last = 3 + 3 * given[2], #given - 1 -- of the numbers of the charges

-- the same request once more: the same answer, and nothing more is taken
local record = found[2]
if taking and first <= last and record then
  local reply = {1, string.sub(record, 1, 8)}
  for at = 9, #record - 7, 8 do reply[#reply + 1] = (struct.unpack('<d', record, at)) end
  return reply
end

local cells = {}
for key = 4, #KEYS do
  local text = found[key]
  if text then
    local starts, ends, used, before, limit, till = struct.unpack('<dddddd', text)
    cells[key] = {starts = starts, ends = ends, used = used, before = before, limit = limit, till = till}
  end
end

-- the counters of the call, each in the window of now; a window that was closed stays closed
local charges = {}
for i = first, last, 6 do
  local charge = {key = given[i], amount = given[i + 1], limit = given[i + 2],
    seconds = given[i + 3], offset = given[i + 4], sliding = given[i + 5] == 1}
  charges[#charges + 1] = charge
  local cell = cells[charge.key]
  if not cell or cell.ends * MICRO <= now then
    local ends = window_end(charge, floor((cell and now or math.max(now, latest)) / MICRO))
    local starts = window_start(charge, ends)
    cells[charge.key] = {starts = starts, ends = ends, used = 0, limit = 0,
      before = cell and cell.ends == starts and cell.used or 0,
      till = charge.sliding and window_end(charge, ends) or ends}
  end
end

-- what is held goes back to the windows that were charged, once, unless the store was emptied meanwhile
local touched = {}
local held = found[3] or ''
if held ~= 'released' and (ARGV[2] == '' or ARGV[2] == generation) then
  for i = 3, first - 1, 3 do
    local key, ends, amount = given[i], given[i + 1], given[i + 2]
    local at = 9 + 16 * (i - 3) / 3
    if ends == 0 and at < #held then ends = (struct.unpack('<d', held, at)) end
    local cell = cells[key]
    local field = cell and (ends == cell.ends and 'used' or ends == cell.starts and 'before')
    if field then
      cell[field] = math.max(0, cell[field] - amount)
      touched[key] = cell
    end
  end
end

local numbers = {} -- of the reply
local after = {}
for index, charge in ipairs(charges) do
  local cell = cells[charge.key]
  local used = cell.used
  if charge.sliding and cell.before > 0 then
    local length = (cell.ends - cell.starts) * MICRO
    used = used + share(cell.before, math.min(length, cell.ends * MICRO - now), length)
  end
  if used > charge.limit - charge.amount then
    return {0, index - 1, cell.starts, cell.ends, cell.used, cell.before, now}
  end
  after[charge.key] = math.max(after[charge.key] or 0, cell.used + charge.amount)
  numbers[#numbers + 1] = cell.ends
  numbers[#numbers + 1] = used
end

if taking then
  for _, charge in ipairs(charges) do
    local cell = cells[charge.key]
    cell.used, cell.limit = after[charge.key], charge.limit
    touched[charge.key] = cell
  end
  for key, cell in pairs(touched) do
    local text = struct.pack('<dddddd', cell.starts, cell.ends, cell.used, cell.before, cell.limit, cell.till)
    redis.call('SET', KEYS[key], text, 'PX', math.max(1, floor(cell.till * 1000 - now / 1000) + GRACE))
  end
  if #charges > 0 then
    local text = generation .. struct.pack('<' .. string.rep('d', #numbers), unpack(numbers))
    redis.call('SET', KEYS[2], text, 'PX', REMEMBER)
  end
  if first > 3 then redis.call('SET', KEYS[3], 'released', 'PX', REMEMBER) end
  if now > latest + MICRO then redis.call('SET', KEYS[1], string.format('%s %.0f', generation, now)) end
end
return {1, generation, unpack(numbers)}
