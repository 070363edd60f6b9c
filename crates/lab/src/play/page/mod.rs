//! The page.

/// The page, as one document without external parts.
pub fn html() -> String {
    "<!doctype html><title>paxos-lab play</title>".to_string()
}
