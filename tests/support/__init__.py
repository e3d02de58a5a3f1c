"""What the tests stand on: real servers, a relay, a real client."""
