-- Numbers as text.

local shown, shown_whole = {}, {}  -- to format one costs as much as a small command

-- Returns seconds as text with six decimal places. Two integers are formatted in half the time of a float.
local function secs(number)
  local text = shown[number]
  if text then return text end
  if number < 0 or number > 4000000000 then return string.format('%.6f', number) end
  local micros = number * 1000000 + 0.5
  local rest = micros % 1000000
  text = string.format('%d.%06d', (micros - rest) / 1000000, rest)
  shown[number] = text
  return text
end

-- Returns a whole number as text.
local function whole(number)
  local text = shown_whole[number]
  if not text then
    text = string.format('%d', number)
    shown_whole[number] = text
  end
  return text
end

--- @inner
