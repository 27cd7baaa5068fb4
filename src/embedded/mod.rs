//! Servers that the demo and the tests start themselves.
