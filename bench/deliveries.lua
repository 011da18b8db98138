-- Requests of wrk: new operations only, a share of them for one organization; GET without arguments.
-- Arguments: seed, number of organizations, share of the hot one. Prints a summary as a line of JSON.

local threads = 0

function setup(thread)
   threads = threads + 1
   thread:set("number", threads)
end

function init(args)
   if #args == 0 then
      return
   end
   math.randomseed(tonumber(args[1]) + number)
   organizations, hot_share = tonumber(args[2]), tonumber(args[3])
   wrk.method = "POST"
   wrk.headers["Content-Type"] = "application/json"
end

local function hexadecimal(digits)
   return string.format("%0" .. digits .. "x", math.random(0, 16 ^ digits - 1))
end

local function operation_id()
   local parts = {hexadecimal(8), hexadecimal(4), "4" .. hexadecimal(3), "8" .. hexadecimal(3), hexadecimal(12)}
   return table.concat(parts, "-")
end

function request()
   if not organizations then
      return wrk.format()
   end
   local organization = math.random() < hot_share and 0 or math.random(1, organizations - 1)
   local body = string.format(
      '{"operation_id": "%s", "amount": %d.%02d, "payer_inn": "77%08d", "document_number": "PAY-%d", ' ..
      '"document_date": "2024-04-27T21:00:00Z"}',
      operation_id(), math.random(1, 100000), math.random(0, 99), organization, math.random(1, 100000))
   return wrk.format(nil, nil, nil, body)
end

function done(summary, latency, requests)
   local errors = summary.errors
   local broken = errors.connect + errors.read + errors.write + errors.timeout
   io.write(string.format('{"responses": %d, "not_200": %d, "broken": %d, "seconds": %f}\n',
      summary.requests, errors.status, broken, summary.duration / 1e6))
end
