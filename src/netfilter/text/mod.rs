pub mod line;
pub mod parse;
