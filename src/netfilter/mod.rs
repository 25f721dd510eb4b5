pub mod backend;
pub mod counters;
pub mod limit;
pub mod rule;
pub mod ruleset;
pub mod text;
pub mod token;
pub mod unread;
