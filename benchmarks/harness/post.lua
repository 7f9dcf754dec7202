-- Posts one body again and again: wrk … -s post.lua URL -- BODY_FILE 'Name: value' …
-- Prints one line of JSON in the end: wrk's own summary lacks the 95th percentile.

function init(words)
   local file = assert(io.open(words[1], "rb"))
   wrk.method, wrk.body = "POST", file:read("*all")
   file:close()
   for place = 2, #words do
      local name, value = words[place]:match("^(.-): (.*)$")
      wrk.headers[name] = value
   end
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      'wrk {"requests": %d, "seconds": %.6f, "failed": %d, "refused": %d, "p50_ms": %.4f, "p95_ms": %.4f, "p99_ms": %.4f}\n',
      summary.requests, summary.duration / 1e6,
      errors.connect + errors.read + errors.write + errors.timeout, errors.status,
      latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
