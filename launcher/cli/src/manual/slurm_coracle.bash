# Coracle's options of srun, sbatch and salloc for bash(1)'s completion, beside those that Slurm's own completion offers.
#
# It belongs into /etc/bash_completion.d, which is read when a shell starts, and there its name comes behind
# slurm_completion.sh. A file `srun` among the completions that bash-completion loads when they are needed would take
# the place of Slurm's own, which has that name.

declare -gA _coracle_options=(
	# the table of options
)
# The function that completed a command before ours did.
declare -gA _coracle_next
# All commands that Slurm's file knows, of any release.
_coracle_slurms=(sacct sacctmgr salloc sattach sbatch sbcast scancel scontrol scrontab sdiag sinfo sprio squeue sreport
	srun sshare sstat strigger)

_coracle_slurm() { # COMMAND WORD PREVIOUS
	local next=${_coracle_next[${1##*/}]:-} word=${COMP_WORDS[COMP_CWORD]} offered
	COMPREPLY=()
	_coracle_value && return
	if [[ -n $next ]]; then
		"$next" "$@"
		(($? != 124)) || return 124
	fi
	[[ $word == -* ]] || return 0
	for offered in "${!_coracle_options[@]}"; do
		# --container= may be among Slurm's own already, with a word for its value.
		[[ $offered != "$word"* || " ${COMPREPLY[*]}" == *" $offered"* ]] || COMPREPLY+=("$offered")
	done
	[[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != *= ]] || compopt -o nospace
	return 0
}

# Offers values, if the cursor is on the value of one of our options.
_coracle_value() {
	local seen=${COMP_WORDS[COMP_CWORD]} whole at=$COMP_CWORD option value
	# readline cuts words at = and : unless COMP_WORDBREAKS says otherwise; what it replaces is the last piece.
	whole=$seen
	while ((at > 1)) && [[ $whole == [=:]* || ${COMP_WORDS[at - 1]} == *[=:] ]]; do
		at=$((at - 1))
		whole=${COMP_WORDS[at]}$whole
	done
	[[ $seen == +([=:]) ]] && seen=''
	if [[ $whole == --*=* ]]; then
		option=${whole%%=*}= value=${whole#*=}
	else
		option=${COMP_WORDS[at - 1]}= value=$whole
	fi
	local kind=${_coracle_options[$option]:-} last=$value
	[[ -n $kind ]] || return
	local candidates=()
	case $kind in
	image)
		mapfile -t candidates < <(compgen -W 'none step' -- "$value"; compgen -f -- "$value")
		compopt -o filenames
		;;
	directory)
		mapfile -t candidates < <(compgen -d -- "$value")
		compopt -o filenames
		;;
	binds)
		last=${value##*[,:]}
		case ${value##*,} in
		*:*:*) mapfile -t candidates < <(compgen -W 'ro rw' -- "$last") ;;
		*) mapfile -t candidates < <(compgen -f -- "$last") ;;
		esac
		compopt -o filenames -o nospace
		;;
	variables)
		last=${value##*,}
		mapfile -t candidates < <(compgen -e -- "$last")
		compopt -o nospace
		;;
	words\ *) mapfile -t candidates < <(compgen -W "${kind#words }" -- "$value") ;;
	esac
	local candidate reply
	for candidate in "${candidates[@]}"; do
		reply=${whole%"$last"}$candidate
		reply=${reply:${#whole} - ${#seen}}
		# Where it is only the end of a word, readline does not see that it is a directory.
		[[ $kind != binds || $reply == "$candidate" || ! -d $candidate ]] || reply+=/
		COMPREPLY+=("$reply")
	done
	return 0
}

# Puts ours in front of what completes the three commands now.
_coracle_wrap() {
	local command spec
	for command in srun sbatch salloc; do
		if ! spec=$(complete -p "$command" 2>/dev/null); then
			complete -o bashdefault -o default -F _coracle_slurm "$command"
			continue
		fi
		[[ $spec =~ ' -F '([^ ]+) ]] || continue
		case ${BASH_REMATCH[1]} in
		_coracle_slurm | _coracle_first) continue ;;
		esac
		_coracle_next[$command]=${BASH_REMATCH[1]}
		eval "${spec/ -F ${BASH_REMATCH[1]}/ -F _coracle_slurm}"
	done
}

# Slurm's file sets the completion of all its commands, srun's among them, when the first of them is completed. So it is
# asked for here, and ours comes after it. 124 makes bash look again.
_coracle_first() { # COMMAND
	local command
	for command in "${_coracle_slurms[@]}"; do
		[[ $(complete -p "$command" 2>/dev/null) != *' -F _coracle_first '* ]] || complete -r "$command"
	done
	if declare -F _comp_load >/dev/null; then
		_comp_load "${1##*/}"
	else
		__load_completion "${1##*/}"
	fi
	_coracle_wrap
	return 124
}

_coracle_begin() {
	local command
	if declare -F _comp_load >/dev/null || declare -F __load_completion >/dev/null; then
		for command in "${_coracle_slurms[@]}"; do
			complete -p "$command" >/dev/null 2>&1 || complete -F _coracle_first "$command"
		done
	fi
	_coracle_wrap
}
_coracle_begin
unset -f _coracle_begin
