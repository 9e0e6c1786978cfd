"""One outside thing each: translates its data and its errors at the edge."""
