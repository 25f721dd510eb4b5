"""Types lines into an interactive shell, and prints each as it stands after its completion.

Arguments: the shell, then files that it reads first. Standard input: the lines, each with the key that completes it behind a
tab: `one` inserts what is certain, `all` inserts every word that fits.
"""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

LIMIT = 60
SHELLS = {
    "bash": {
        "command": ["bash", "--norc", "--noprofile", "-i"],
        # \eX writes the line out.
        "setup": r"""
PS1='ready> '
bind 'set enable-bracketed-paste off'
bind -x '"\eX": printf "\001%s\002" "$READLINE_LINE"'
""",
        "keys": {"one": "\t", "all": "\x1b*"},
    },
    "zsh": {
        "command": ["zsh", "-f", "-i"],
        "setup": r"""
PROMPT='ready> '
unset zle_bracketed_paste
autoload -U compinit
compinit -D -u
shown() { print -rn -- $'\001'$BUFFER$'\002' }
zle -N shown
bindkey '\eX' shown
bindkey '\t' complete-word
zle -C all-matches complete-word _generic
bindkey '\e*' all-matches
zstyle ':completion:all-matches:*' insert yes
zstyle ':completion:all-matches::::' completer _all_matches _complete
""",
        "keys": {"one": "\t", "all": "\x1b*"},
    },
}


def main():
    name, *files = sys.argv[1:]
    shell = SHELLS[name]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "vt100"
        os.execvp(shell["command"][0], shell["command"])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 4000, 0, 0))
    setup = shell["setup"] + "".join(f"source {file}\n" for file in files)
    said = ""

    def until(pattern):
        nonlocal said
        end = time.monotonic() + LIMIT
        while not (found := re.search(pattern, said, re.DOTALL)):
            if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
                sys.exit(f"{name} has not said {pattern!r}: {said!r}")
            said += os.read(terminal, 65536).decode()
        before, said = said[: found.start()], said[found.end() :]
        return before, found

    for line in setup.strip().split("\n"):
        os.write(terminal, f"{line}\r".encode())
    os.write(terminal, b"printf '\\003\\004'\r")
    until("\x03\x04")
    until("ready> ")
    for line in sys.stdin.read().splitlines():
        text, key = line.rsplit("\t", 1)
        os.write(terminal, f"{text}{shell['keys'][key]}\x1bX".encode())
        around, found = until("\x01(.*?)\x02")
        print(found[1])
        # The rest of the output must have no message.
        for word in ["rror", "not found", "usage", "Traceback"]:
            if word in around:
                sys.exit(f"{name} has said {around!r}")
        os.write(terminal, b"\x15")
    os.write(terminal, b"\x15exit\r")
    os.close(terminal)
    os.waitpid(pid, 0)


main()
