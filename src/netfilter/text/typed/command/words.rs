//! The words of a command, read one after the other.

/// A place among the words.
#[derive(Debug)]
pub struct CommandWords<'w> {
    words: &'w [String],
    at: usize,
}

impl<'w> CommandWords<'w> {
    pub fn new(words: &'w [String]) -> Self {
        Self { words, at: 0 }
    }

    /// Returns the next word.
    pub fn next_word(&mut self) -> Option<&'w str> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    /// Returns the next word, unless an option or `!` begins there (`xs_has_arg` in iptables/xshared.c).
    pub fn next_plain(&mut self) -> Option<&'w str> {
        let word = self.words.get(self.at)?;
        if word.starts_with(['-', '!']) {
            return None;
        }
        self.next_word()
    }
}
