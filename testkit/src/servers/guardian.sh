# Cleans up after the process at the other end of standard input.
#
# $1 is the folder to remove. Lines on standard input: "watch PID SIGNAL", "forget PID", "done".
# When the input ends without "done", the process that made us is gone: its servers get their signal,
# after five seconds KILL, and the folder is removed.

trap '' HUP INT TERM QUIT
folder=$1
watched=

# Prints the start time of a process, nothing when it is gone or a zombie. A number that was given to
# another process has another start time.
start_of() {
    if [ -d /proc/self ]; then
        line=
        { IFS= read -r line < "/proc/$1/stat"; } 2>/dev/null
        [ -n "$line" ] || return 0
        set -- ${line##*) }
        case $1 in Z | X) ;; *) printf '%s' "${20}" ;; esac
    else
        set -- $(ps -o stat=,lstart= -p "$1" 2>/dev/null)
        case $1 in Z* | '') ;; *) printf '%s' "$2_$3_$4_$5_$6" ;; esac
    fi
}

# $1 is PID:SIGNAL:START.
lives() {
    [ -n "${1##*:}" ] && [ "$(start_of "${1%%:*}")" = "${1##*:}" ]
}

any_lives() {
    for entry in $watched; do
        lives "$entry" && return 0
    done
    return 1
}

pause() {
    sleep 0.05 2>/dev/null || sleep 1
}

while read -r verb process signal; do
    case $verb in
    watch)
        watched="$watched $process:$signal:$(start_of "$process")"
        ;;
    forget)
        rest=
        for entry in $watched; do
            [ "${entry%%:*}" = "$process" ] || rest="$rest $entry"
        done
        watched=$rest
        ;;
    done)
        exit 0
        ;;
    esac
done

for entry in $watched; do
    if lives "$entry"; then
        process=${entry%%:*}
        signal=${entry#*:}
        kill -s "${signal%%:*}" "$process" 2>/dev/null
        kill -s CONT "$process" 2>/dev/null
    fi
done

tries=0
while any_lives && [ "$tries" -lt 100 ]; do
    pause
    tries=$((tries + 1))
done
for entry in $watched; do
    if lives "$entry"; then
        # The server leads a process group that was made for it.
        kill -s KILL -- "-${entry%%:*}" 2>/dev/null
    fi
done

tries=0
while [ -e "$folder" ] && [ "$tries" -lt 100 ]; do
    rm -rf -- "$folder" 2>/dev/null
    [ -e "$folder" ] && pause
    tries=$((tries + 1))
done
