//! The clients about whose connections a chain has not decided yet.

use super::addresses::Addresses;

/// The clients that are on their way through the rules of a chain.
#[derive(Debug, Clone)]
pub struct Undecided {
    here: Addresses,
    /// Clients that have returned from a chain, each with the number of the rule at which they go on.
    returned: Vec<(usize, Addresses)>,
}

impl Undecided {
    pub fn new(clients: Addresses) -> Self {
        Self {
            here: clients,
            returned: Vec::new(),
        }
    }

    /// Goes on to a rule. Clients come back that have returned from a chain before it.
    pub fn reach(&mut self, number: usize) {
        for (_, clients) in self.returned.extract_if(.., |(at, _)| *at <= number) {
            self.here = self.here.with(&clients);
        }
    }

    /// Returns the clients that meet the rule.
    pub fn here(&self) -> &Addresses {
        &self.here
    }

    /// Takes clients out that a rule has decided about.
    pub fn decide(&mut self, clients: &Addresses) {
        self.here = self.here.without(clients);
    }

    /// Sends clients back to the rule with a number.
    pub fn send_back(&mut self, clients: Addresses, number: usize) {
        self.here = self.here.without(&clients);
        self.returned.push((number, clients));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;

    #[test]
    fn clients_that_return_come_back_behind_their_chain() {
        let net = |text: &str| Addresses::of(text.parse::<IpNet>().expect("a net"));
        let (all, low, high) = (net("10.0.0.0/24"), net("10.0.0.0/25"), net("10.0.0.128/25"));
        let mut clients = Undecided::new(all.clone());
        clients.send_back(low.clone(), 3);
        clients.reach(2);
        assert_eq!(*clients.here(), high);
        clients.decide(&high);
        clients.reach(3);
        assert_eq!(*clients.here(), low);
    }
}
