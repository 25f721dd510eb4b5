# Completes nvactl in fish. nvactl itself prints the words, and fish completes paths.
function __nvactl_words
    command -q nvactl; or return
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    # The words behind the cursor. An empty word at the cursor is none of them.
    set -l behind (commandline -op)
    set -l read (count $before $current)
    test -n "$current"; or set read (count $before)
    set -e behind[1..$read]
    set -l words (string replace -r '^~/' "$HOME/" -- $before "$current" $behind)
    set -l lines (command nvactl complete (count $before) -- $words 2>/dev/null </dev/null)
    count $lines >/dev/null; or return
    string join \n -- $lines[2..-1]
    set -l option (string match -r -- '^--[^=]*=' $current)
    set -l value (string replace -r -- '^--[^=]*=' '' $current)
    # The empty command has no completions of its own, so fish offers files. It knows its own quotes.
    set -l paths (complete -C "'' $value")
    switch $lines[1]
        case SPEC
            set -l specs (string match -r -- '^[^\t]*(?:/|\.yaml)(?:\t.*)?$' $paths)
            count $specs >/dev/null; and set paths $specs
        case FOLDER
            set paths (string match -r -- '^[^\t]*/(?:\t.*)?$' $paths)
        case FILE
        case '*'
            return
    end
    string replace -r -- '^' "$option" $paths
end
complete -c nvactl -f -k -a '(__nvactl_words)'
