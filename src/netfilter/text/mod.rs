pub mod line;
pub mod parse;
mod print;
