# To be sourced. `find_engine` looks for a container engine that really runs a container here. It sets `engine` (podman or
# docker) and exports CONTAINERS_CONF where podman needs other settings on this machine; or returns 1 with the reason in
# `no_engine`. XMODAL_ENGINE=podman|docker chooses.
# shellcheck shell=bash disable=SC2034 # what it sets is for who sources it

# The settings with which podman 4.3 runs where a machine may not raise limits and crun does not know its cgroups.
_podman_settings() { # FILE
    cat >"$1" <<'CONF'
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
CONF
}

# An image of two files, `true` and its libraries: the least with which an engine can show that it works.
_probe_image=localhost/xmodal-probe:1
_make_probe() { # ENGINE
    "$1" image inspect "$_probe_image" >/dev/null 2>&1 && return
    local needed
    needed=$(ldd /bin/true | grep -o '/[^ ]*' | sort -u)
    # shellcheck disable=SC2046 # one word a library
    tar -C / -ch bin/true $(sed 's,^/,,' <<<"$needed") | "$1" import - "$_probe_image"
}

_runs() { # ENGINE: does it run a container? What it says goes to no_engine
    no_engine=$(_make_probe "$1" 2>&1) || return 1
    no_engine=$("$1" run --rm --network none "$_probe_image" /bin/true 2>&1)
}

find_engine() {
    local name settings said=''
    engine='' no_engine=''
    for name in ${XMODAL_ENGINE:-podman docker}; do
        if ! command -v "$name" >/dev/null; then
            said+="there is no $name on PATH; "
            continue
        fi
        if _runs "$name"; then
            engine=$name
            return 0
        fi
        if [[ $name == podman && -z ${CONTAINERS_CONF:-} ]] && command -v runc >/dev/null; then
            settings=$(realpath -m "${XMODAL_ENGINE_DIR:-build/containers}/containers.conf")
            mkdir -p "${settings%/*}"
            _podman_settings "$settings"
            export CONTAINERS_CONF=$settings
            if _runs podman; then
                engine=podman
                return 0
            fi
            unset CONTAINERS_CONF
        fi
        said+="$name does not run a container: $(tail -n 1 <<<"$no_engine"); "
    done
    no_engine=${said%; }
    return 1
}
