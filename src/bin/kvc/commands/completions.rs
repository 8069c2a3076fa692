//! The completion scripts for shells.
//!
//! clap generates them, without the names of the targets and without a hint where files are meant.
//! What is added here asks kvc for the names when they are needed, so that they come from the
//! current targets file.

use clap::builder::ValueHint;
use clap::{Arg, Args, Command};
use clap_complete::Shell;

use crate::connection::{TargetArgs, targets};
use crate::failure::Failure;
use crate::output::escape::printable;
use crate::streams;

/// The help on where each shell looks for its script.
pub(crate) const ABOUT: &str = "\
Each shell reads its script from a place of its own when it starts:
  bash  kvc completions bash > ~/.local/share/bash-completion/completions/kvc
  zsh   kvc completions zsh > ~/.zfunc/_kvc   # fpath+=~/.zfunc, then compinit
  fish  kvc completions fish > ~/.config/fish/completions/kvc.fish
In bash, source <(kvc completions bash) is enough for the current shell. In bash, zsh and fish,
--target is completed with the names that kvc completions --targets lists.";

/// Replaces the function that clap_complete generated, and calls it. Bash passes a word that it
/// splits at = in pieces. A name is compared and quoted, and never expanded.
const BASH: &str = r#"
_kvc_completed() {
    local cur="$2" prev="$3" i name
    local config=()
    if [[ "${COMP_WORDS[COMP_CWORD]}" == "=" ]]; then
        cur=""
        COMP_WORDS[COMP_CWORD]=""
    elif [[ "$prev" == "=" && COMP_CWORD -ge 2 ]]; then
        prev="${COMP_WORDS[COMP_CWORD-2]}"
        COMP_WORDS=("${COMP_WORDS[@]:0:COMP_CWORD-1}" "$cur")
        COMP_CWORD=$((COMP_CWORD - 1))
    fi
    COMPREPLY=()
    case "$prev" in
        --target)
            for ((i = 1; i < COMP_CWORD; i++)); do
                if [[ "${COMP_WORDS[i]}" == "--config" ]]; then
                    name="${COMP_WORDS[i+1]}"
                    [[ "$name" == "=" ]] && name="${COMP_WORDS[i+2]}"
                    config=(--config "$name")
                fi
            done
            while IFS= read -r name; do
                [[ "$name" == "$cur"* ]] && COMPREPLY+=("$(printf %q "$name")")
            done < <("$1" completions --targets "${config[@]}" 2> /dev/null)
            return 0
            ;;
        FILES)
            compopt -o default 2> /dev/null
            return 0
            ;;
        OTHERS)
            return 0
            ;;
    esac
    _kvc "$1" "$cur" "$prev"
    # Flags are offered to those who have begun one.
    if [[ "$cur" != -* ]]; then
        for i in "${!COMPREPLY[@]}"; do
            [[ "${COMPREPLY[i]}" == -* ]] && unset "COMPREPLY[i]"
        done
        if [[ ${#COMPREPLY[@]} -eq 0 && " ${COMP_WORDS[*]:0:COMP_CWORD} " == *" import "* ]]; then
            compopt -o default 2> /dev/null
        fi
    fi
    return 0
}
complete -F _kvc_completed kvc
"#;

/// The function that zsh calls for the name of a target.
const ZSH: &str = r#"
(( $+functions[_kvc_targets] )) ||
_kvc_targets() {
    local -a names
    names=(${(f)"$(_call_program targets kvc completions --targets 2> /dev/null)"})
    compadd -a names
}
"#;

const FISH: &str =
    "complete -c kvc -l target -x -a '(command kvc completions --targets 2> /dev/null)'\n";

#[derive(Debug, Args)]
// clap would show <SHELL> in brackets: with --targets it is not required.
#[command(override_usage = "kvc completions [OPTIONS] <SHELL>")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(required_unless_present = "targets")]
    shell: Option<Shell>,
    /// Print the names of the targets instead, one per line, as the scripts ask for them
    #[arg(long, conflicts_with = "shell")]
    targets: bool,
}

/// Prints the completion script of a shell, or else the names of the targets.
pub(crate) fn print(
    what: &CompletionsArgs,
    target: &TargetArgs,
    command: Command,
) -> Result<(), Failure> {
    let text = match what.shell {
        Some(shell) => script(shell, command),
        None => target_names(target),
    };
    streams::print(text.as_bytes()).map_err(|error| Failure::stdout(&error))
}

fn script(shell: Shell, mut command: Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "kvc", &mut script);
    let script = String::from_utf8_lossy(&script);
    match shell {
        Shell::Bash => format!("{script}{}", bash(&command)),
        Shell::Zsh => zsh(&script),
        Shell::Fish => format!("{script}{FISH}"),
        _ => script.into_owned(),
    }
}

fn target_names(target: &TargetArgs) -> String {
    let names = targets::names(target);
    names.iter().map(|name| printable(name) + "\n").collect()
}

fn bash(command: &Command) -> String {
    let (mut files, mut others) = (Vec::new(), Vec::new());
    for argument in std::iter::once(command)
        .chain(command.get_subcommands())
        .flat_map(Command::get_opts)
        .filter(|argument| argument.get_possible_values().is_empty())
    {
        let Some(long) = argument.get_long().filter(|long| *long != "target") else {
            continue;
        };
        let flags = if is_path(argument) {
            &mut files
        } else {
            &mut others
        };
        flags.push(format!("--{long}"));
    }
    let pattern = |mut flags: Vec<String>| {
        flags.sort_unstable();
        flags.dedup();
        flags.join(" | ")
    };
    BASH.replace("FILES", &pattern(files))
        .replace("OTHERS", &pattern(others))
}

fn is_path(argument: &Arg) -> bool {
    matches!(
        argument.get_value_hint(),
        ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath
    )
}

/// Inserts the function after the first line, which has to say what is completed.
fn zsh(script: &str) -> String {
    let lines = script.lines().map(|line| match line {
        line if line.starts_with("'--target=[") => {
            line.replace(":NAME:_default'", ":NAME:_kvc_targets'")
        }
        line => line.to_owned(),
    });
    let mut lines: Vec<String> = lines.collect();
    lines.insert(lines.len().min(1), ZSH.trim_end().to_owned());
    lines.join("\n") + "\n"
}
