//! Scripts in the place of the iptables programs.

use crate::namespace::Host;

/// Puts a script in the place of one of the iptables programs; `real` runs the one that was there.
pub fn fake(host: &Host, name: &str, script: &str) {
    host.shell(&format!(
        "mkdir -p /run/real
         mv /run/bin/{name} /run/real/{name}
         cat > /run/bin/{name} <<'END'
#!/bin/sh
real() {{ /run/real/{name} \"$@\"; }}
{script}
END
         chmod +x /run/bin/{name}"
    ));
}

pub fn unfake(host: &Host, name: &str) {
    host.run(&format!("mv /run/real/{name} /run/bin/{name}"));
}
