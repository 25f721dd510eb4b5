//! The matches and the target that a command has loaded so far, and the options that it has because of them.

use super::{Loaded, options};
use crate::net::Family;
use crate::netfilter::text::typed::error::{OrProblem, TypedProblem};
use crate::netfilter::text::typed::extensions::{ExtensionOption, match_named, target_named};
use crate::netfilter::text::typed::values::protocols;

/// A match or the target, in the order of loading.
pub enum Slot {
    Match(Loaded),
    Target(Loaded),
}

impl Slot {
    fn loaded(&self) -> &Loaded {
        match self {
            Slot::Match(loaded) | Slot::Target(loaded) => loaded,
        }
    }

    pub fn loaded_mut(&mut self) -> &mut Loaded {
        match self {
            Slot::Match(loaded) | Slot::Target(loaded) => loaded,
        }
    }
}

/// An option that a long name stands for.
pub enum Meant {
    Own(char),
    OfSlot(usize, ExtensionOption),
}

/// The extensions in the order of loading.
pub struct Loading {
    family: Family,
    loaded: Vec<Slot>,
}

impl Loading {
    pub fn new(family: Family) -> Self {
        Self {
            family,
            loaded: Vec::new(),
        }
    }

    /// Returns the extension of a place that [`Loading::meant`] gave.
    pub fn at(&mut self, slot: usize) -> &mut Loaded {
        self.loaded[slot].loaded_mut()
    }

    pub fn finish(self) -> Vec<Slot> {
        self.loaded
    }

    /// Finds the option that a long name, or the beginning of one, stands for. Options of iptables come first, then
    /// those of the extension that was loaded last (`xtables_merge_options` in libxtables). The match of the protocol
    /// is loaded when an option is not known without it.
    pub fn meant(&mut self, name: &str, protocol: Option<&str>) -> OrProblem<Meant> {
        if let Some(meant) = self.known(name) {
            return Ok(meant);
        }
        if self.load_protocol(protocol)
            && let Some(meant) = self.known(name)
        {
            return Ok(meant);
        }
        Err(TypedProblem::UnknownOption(format!("--{name}")))
    }

    fn known(&self, name: &str) -> Option<Meant> {
        if let Some(letter) = options::long(name) {
            return Some(Meant::Own(letter));
        }
        let of_slots = || {
            let slots = self.loaded.iter().enumerate().rev();
            slots.flat_map(|(slot, loaded)| {
                let options = loaded.loaded().extension.options();
                options.map(move |option| (slot, option))
            })
        };
        let is_named = |(_, option): &(usize, ExtensionOption)| {
            let mut names = option.names();
            names.any(|known| known == name)
        };
        if let Some((slot, option)) = of_slots().find(is_named) {
            return Some(Meant::OfSlot(slot, option));
        }
        let begins = |(_, option): &(usize, ExtensionOption)| {
            let mut names = option.names();
            names.any(|known| known.starts_with(name))
        };
        let own = options::beginning_with(name);
        let mut beginning = of_slots().filter(begins);
        match (own.as_slice(), beginning.next(), beginning.next()) {
            ([letter], None, _) => Some(Meant::Own(*letter)),
            ([], Some((slot, option)), None) => Some(Meant::OfSlot(slot, option)),
            _ => None,
        }
    }

    /// Loads the match of the rule's protocol, if it has one and that is not loaded yet.
    fn load_protocol(&mut self, protocol: Option<&str>) -> bool {
        let name = protocol.and_then(|typed| protocols::module(typed, self.family));
        let Some(name) = name else {
            return false;
        };
        let is_loaded = |slot: &Slot| slot.loaded().extension.name == name;
        if self.loaded.iter().any(is_loaded) {
            return false;
        }
        let Some(extension) = match_named(name, self.family) else {
            return false;
        };
        self.loaded.push(Slot::Match(Loaded {
            extension,
            given: Vec::new(),
        }));
        true
    }

    /// Loads a match that `-m` names.
    pub fn load_match(&mut self, name: &str) -> OrProblem<()> {
        let unknown = || TypedProblem::UnknownMatch {
            name: name.to_owned(),
            of: self.family,
        };
        let extension = match_named(name, self.family).ok_or_else(unknown)?;
        self.loaded.push(Slot::Match(Loaded {
            extension,
            given: Vec::new(),
        }));
        Ok(())
    }

    /// Loads a target, unless it is a verdict or a chain.
    pub fn load_target(&mut self, name: &str) {
        if let Some(extension) = target_named(name, self.family) {
            self.loaded.push(Slot::Target(Loaded {
                extension,
                given: Vec::new(),
            }));
        }
    }
}
