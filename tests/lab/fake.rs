//! Scripts in the place of programs of the packet filter.

use std::process::Command;

use rustix::thread::UnshareFlags;

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

/// Puts a script in the place of programs, in mounts of the calling thread's own, for programs that the test process
/// itself starts. `real` runs the program that was there.
pub fn fake_here(programs: &[&str], script: &str) {
    #[expect(
        deprecated,
        reason = "the function in its place is `unsafe`, for flags that are not used here"
    )]
    rustix::thread::unshare(UnshareFlags::NEWNS).expect("root has mounts of its own");
    // A program with many names knows by its name what to do.
    let mount = format!(
        "mount --make-rprivate /
         mount -t tmpfs tmpfs /run
         mkdir /run/real
         for program; do
           file=$(readlink -f \"$(command -v $program)\")
           name=${{file##*/}}
           cp $file /run/real/$name
           cat > /run/$name <<END
#!/bin/sh
real() {{
  ln -s $name /run/real/\\${{0##*/}} 2> /dev/null
  /run/real/\\${{0##*/}} \"\\$@\"
}}
END
           cat >> /run/$name <<'END'
{script}
END
           chmod +x /run/$name
           mount --bind /run/$name $file
         done"
    );
    let output = Command::new("sh")
        .args(["-ec", &mount, "sh"])
        .args(programs)
        .output();
    let output = output.expect("a shell starts");
    assert!(output.status.success(), "{output:?}");
}

/// Counts from now on the programs of the packet filter that the calling thread starts, and the lines that nft prints.
pub fn count_programs() {
    fake_here(
        &["nft", "iptables-nft", "iptables-legacy"],
        "echo >> /run/started
         real \"$@\" > /run/printed.$$
         code=$?
         case $0 in */nft) cat /run/printed.$$ >> /run/listed; esac
         cat /run/printed.$$
         exit $code",
    );
}

/// Returns the number of programs, and of the lines that nft printed.
pub fn counted_programs() -> [usize; 2] {
    ["/run/started", "/run/listed"].map(|file| {
        let output = Command::new("cat").arg(file).output();
        let text = output.expect("it is installed").stdout;
        String::from_utf8_lossy(&text).lines().count()
    })
}
