# Completes nvactl in bash 4.4 and later. nvactl itself prints the words, and bash completes paths.
_nvactl() {
  local -a words=() lines=()
  local word at=0 i rest=$COMP_LINE current='' paths last=${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=()
  # bash splits words at `=` and `:`. One that has no blank before it belongs to the word before.
  for ((i = 0; i <= COMP_CWORD || i < ${#COMP_WORDS[@]}; i++)); do
    word=${COMP_WORDS[i]}
    if ((i == 0)) || [[ $rest == [[:blank:]]* || $rest != "$word"* ]]; then
      rest=${rest#"${rest%%[![:blank:]]*}"}
      words+=("$word")
    else
      words[-1]+=$word
    fi
    rest=${rest#"$word"}
    ((i == COMP_CWORD)) && at=$((${#words[@]} - 1)) current=${words[-1]}
  done
  # The word at the cursor ends there.
  words[at]=$current
  for i in "${!words[@]}"; do
    word=${words[i]//[\\\"\']/}
    # shellcheck disable=SC2088 # bash has not expanded it.
    [[ $word == '~/'* ]] && word=$HOME/${word#'~/'}
    words[i]=$word
  done
  mapfile -t lines < <({ command nvactl complete "$at" -- "${words[@]}"; } 2>/dev/null </dev/null)
  paths=${lines[0]-}
  # bash replaces only the last of the pieces that it has split.
  [[ $last == [=:] ]] && last=''
  for word in "${lines[@]:1}"; do
    word=${word%%$'\t'*}
    COMPREPLY+=("${word#"${current%"$last"}"}")
  done
  [[ $paths == [A-Z]* ]] || return 0
  lines=()
  case $paths in
    SPEC) mapfile -t lines < <(compgen -d -- "$last"; compgen -f -X '!*.yaml' -- "$last") ;;
    FOLDER) mapfile -t lines < <(compgen -d -- "$last") ;;
    # `-o default` adds nothing to words.
    FILE) ((${#COMPREPLY[@]})) && mapfile -t lines < <(compgen -f -- "$last") ;;
  esac
  COMPREPLY+=("${lines[@]}")
  # bash completes any path if none is offered: it knows its own quotes.
  ((${#lines[@]})) || compopt -o default 2>/dev/null
  compopt -o filenames 2>/dev/null
  return 0
}
complete -F _nvactl nvactl
