//! The system log: one line for each change, confirmation, cancellation and undo.
//!
//! The facility is authpriv, like that of sshd and sudo, whose lines show who logged in. Only root and the
//! log's group can read the names and addresses (`/var/log/auth.log` on Debian and Ubuntu, `/var/log/secure`
//! on Red Hat).

use crate::diff::drift::ForwardNames;
use crate::host::session::Who;
use crate::host::{process, syslog};
use crate::net::printable::cut_in_quotes;
use crate::plan::digest::Digest;

/// An event in the life of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeEvent {
    /// The change is loaded and stays.
    Made,
    /// The change is loaded, and is undone unless it is confirmed within these seconds.
    MadeToConfirm {
        secs: u64,
    },
    /// The new rules may or may not be loaded.
    Uncertain,
    Confirmed,
    /// The unreadable record is discarded; the rules stay.
    Discarded,
    /// The change was undone on request.
    Cancelled,
    /// The change was undone, since it was not confirmed in time.
    TimedOut,
}

/// A line of the log.
#[derive(Debug, Clone)]
pub struct LogEntry<'a> {
    pub event: ChangeEvent,
    /// The command of the change: `apply forward.yaml`.
    pub action: &'a str,
    /// The person who decided on the change, else the one who made it.
    pub who: &'a Who,
    /// The digest of the spec, if the change has one.
    pub spec: Option<Digest>,
    pub forwards: &'a ForwardNames,
}

/// Writes a line to the system log.
pub fn write(entry: &LogEntry<'_>) {
    syslog::write(&entry.line(process::own_id()));
}

/// `LOG_AUTHPRIV` (syslog(3)), shifted to its place in a line's first number.
const AUTHPRIV: u8 = 10 << 3;
const WARNING: u8 = 4;
const NOTICE: u8 = 5;

/// The most bytes of each kind of text, so that a line has less than 1024 bytes, the minimum that RFC 3164
/// requires receivers to keep.
const MOST_ACTION: usize = 160;
const MOST_NAME: usize = 64;
const MOST_FORWARDS: usize = 128;

impl ChangeEvent {
    fn severity(self) -> u8 {
        match self {
            ChangeEvent::TimedOut | ChangeEvent::Uncertain | ChangeEvent::Discarded => WARNING,
            _ => NOTICE,
        }
    }

    fn words(self) -> String {
        match self {
            ChangeEvent::Made => "change made".to_owned(),
            ChangeEvent::MadeToConfirm { secs } => {
                format!("change made, undone unless confirmed in {secs} s")
            }
            ChangeEvent::Uncertain => "change not verified".to_owned(),
            ChangeEvent::Confirmed => "change confirmed".to_owned(),
            ChangeEvent::Discarded => "record of a change discarded, its rules stay".to_owned(),
            ChangeEvent::Cancelled => "change cancelled and undone".to_owned(),
            ChangeEvent::TimedOut => "change not confirmed in time and undone".to_owned(),
        }
    }
}

impl LogEntry<'_> {
    /// Returns the line, with the number that syslogd sorts by. syslogd adds the time.
    fn line(&self, process: u32) -> String {
        let mut line = format!(
            "<{}>nvactl[{process}]: {}: {} user={}",
            AUTHPRIV | self.event.severity(),
            self.event.words(),
            quoted(self.action, MOST_ACTION),
            quoted(&self.who.user, MOST_NAME)
        );
        let Who {
            sudo_user,
            ssh_connection,
            ..
        } = self.who;
        let fields = [
            (
                "sudo_user",
                sudo_user.as_ref().map(|name| quoted(name, MOST_NAME)),
            ),
            (
                "ssh_connection",
                ssh_connection.as_ref().map(|value| format!("\"{value}\"")),
            ),
            ("spec", self.spec.map(|spec| spec.to_string())),
            ("added", listed(&self.forwards.added)),
            ("changed", listed(&self.forwards.changed)),
            ("removed", listed(&self.forwards.removed)),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                line.push_str(&format!(" {name}={value}"));
            }
        }
        line
    }
}

/// Joins the names that fit, and adds the number of the others; `None` without a name.
fn listed(names: &[String]) -> Option<String> {
    let mut list = String::new();
    for (n, name) in names.iter().enumerate() {
        let name = cut_in_quotes(name, MOST_NAME);
        if list.len() + name.len() > MOST_FORWARDS {
            list.push_str(&format!(" and {} more", names.len() - n));
            break;
        }
        if n > 0 {
            list.push_str(", ");
        }
        list.push_str(&name);
    }
    (!list.is_empty()).then(|| format!("\"{list}\""))
}

fn quoted(text: &str, most: usize) -> String {
    format!("\"{}\"", cut_in_quotes(text, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(sudo_user: &str) -> Who {
        Who {
            user: "root".to_owned(),
            sudo_user: Some(sudo_user.to_owned()),
            ssh_connection: "198.51.100.10 50022 10.3.0.4 22".parse().ok(),
        }
    }

    #[test]
    fn a_line_says_who_changed_what() {
        let entry = LogEntry {
            event: ChangeEvent::MadeToConfirm { secs: 60 },
            action: "apply forward.yaml",
            who: &who("alice"),
            spec: Some(Digest::of([""])),
            forwards: &ForwardNames {
                added: vec!["web".to_owned(), "dns.v2".to_owned()],
                changed: vec![],
                removed: vec!["games".to_owned()],
            },
        };
        assert_eq!(
            entry.line(42),
            "<85>nvactl[42]: change made, undone unless confirmed in 60 s: \"apply forward.yaml\" \
             user=\"root\" sudo_user=\"alice\" \
             ssh_connection=\"198.51.100.10 50022 10.3.0.4 22\" spec=SPEC \
             added=\"web, dns.v2\" removed=\"games\""
                .replace("SPEC", &Digest::of([""]).to_string())
        );
    }

    #[test]
    fn unknown_fields_are_left_out() {
        let entry = LogEntry {
            event: ChangeEvent::TimedOut,
            action: "remove",
            who: &Who {
                user: "root".to_owned(),
                sudo_user: None,
                ssh_connection: None,
            },
            spec: None,
            forwards: &ForwardNames::default(),
        };
        assert_eq!(
            entry.line(42),
            "<84>nvactl[42]: change not confirmed in time and undone: \"remove\" user=\"root\""
        );
    }

    #[test]
    fn foreign_text_stays_in_one_line_and_in_its_quotes() {
        let entry = LogEntry {
            event: ChangeEvent::Confirmed,
            action: "apply a\n<0>sshd[1]: \u{1b}[2J\u{9b}\u{202e}\" \\\" user=\"nobody\r.yaml",
            who: &who("é\0"),
            spec: None,
            forwards: &ForwardNames::default(),
        };
        let line = entry.line(1);
        assert!(!line.contains(char::is_control), "{line:?}");
        let action = r#""apply a\n<0>sshd[1]: \u{1b}[2J\u{9b}\u{202e}\" \\\" user=\"nobody\r.yaml" user="root""#;
        assert!(line.contains(action), "{line}");
        assert!(line.contains(r#"sudo_user="é\u{0}""#), "{line}");
    }

    #[test]
    fn the_line_of_a_huge_change_is_short() {
        let long = "\"n\u{301}".repeat(5000);
        let names: Vec<String> = (0..10_000)
            .map(|n| format!("{n}-{}", "x".repeat(50)))
            .collect();
        let end = "fe80:1111:2222:3333:4444:5555:6666:7777%interface-name0 65535";
        let entry = LogEntry {
            event: ChangeEvent::MadeToConfirm { secs: 86400 },
            action: &long,
            who: &Who {
                user: long.clone(),
                sudo_user: Some(long.clone()),
                ssh_connection: format!("{end} {end}").parse().ok(),
            },
            spec: Some(Digest::of([""])),
            forwards: &ForwardNames {
                added: names.clone(),
                changed: names.clone(),
                removed: names,
            },
        };
        let line = entry.line(u32::MAX);
        assert!(line.len() < 1024, "{}: {line}", line.len());
        assert!(entry.who.ssh_connection.is_some());
        assert!(line.contains("and 9998 more\" changed="), "{line}");
    }
}
