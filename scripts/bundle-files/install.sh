#!/usr/bin/env bash
# Installs xmodal from the bundle this script lies in. No internet, no root. See README.md beside it.
set -euo pipefail
export LC_ALL=C
bundle=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)

say() { echo "install: $*" >&2; }
usage() { say "$1. What to do: install.sh --help"; exit 2; }
refuse() { say "$1. What to do: $2. Nothing was installed"; exit 3; }

show_help() {
    cat <<HELP
install.sh [--prefix DIR] [--engine ENGINE] [--no-images]

Checks this bundle against SHA256SUMS, then installs it. Nothing is fetched, and root is not needed.

  --prefix DIR       where to [default: ${HOME:-\$HOME}/xmodal-$version]. A new folder, or the one of an earlier run with this bundle.
  --engine ENGINE    podman, docker, apptainer, singularity, or none: a Python environment from the wheels, for Python $python
                     on x86_64 [default: the first engine on PATH]
  --no-images        leave the images out: the nodes have them already
  --help             this text

Exit codes: 0 installed (or already there), 2 usage, 3 refused: a damaged bundle, no room, no engine; nothing is installed.
HELP
}

read_contents() { # what the bundle says of itself
    local word a b c
    version='' python='' venv_bytes=0 archive_bytes=0 one_sif=no kinds=() models=()
    declare -gA image=() id=()
    [[ -r $bundle/contents.txt ]] || refuse "contents.txt is missing in $bundle" "copy the bundle again"
    while read -r word a b c; do
        case $word in
        version) version=$a ;; python) python=$a ;; one_sif) one_sif=$a ;;
        venv_bytes) venv_bytes=$a ;; archive_bytes) archive_bytes=$a ;;
        image) kinds+=("$a") image[$a]=$b id[$a]=$c ;;
        model) models+=("$a${b:+ $b}${c:+ $c}") ;; # a name may hold blanks
        esac
    done <"$bundle/contents.txt"
    archive=$(compgen -G "$bundle/images/images.tar.*" || true)
}

# Every file listed is there and whole, and nothing else lies about: a list that was cut short would not be noticed otherwise.
check_sums() {
    local name bad said
    [[ -s $bundle/SHA256SUMS ]] || refuse "SHA256SUMS is missing in $bundle" "copy the bundle again"
    cd "$bundle"
    while read -r _ name; do
        [[ -e $name ]] || refuse "$name is missing in $bundle" "copy the bundle again"
    done <SHA256SUMS
    bad=$(comm -13 <(cut -c 67- SHA256SUMS | sort) <(find . \( -type f -o -type l \) ! -path ./SHA256SUMS | sed 's,^\./,,' | sort) | sed -n 1p)
    [[ -z $bad ]] || refuse "$bad is not listed in SHA256SUMS: a foreign file, or the list was cut" "copy the bundle into an empty folder"
    say "checking $(wc -l <SHA256SUMS) files"
    if ! said=$(sha256sum --check --quiet --strict SHA256SUMS 2>&1); then
        bad=$(sed -n '/: FAILED/{s/: FAILED.*//p;q}' <<<"$said")
        [[ -z $bad ]] || refuse "$bad is damaged in $bundle: not the bytes of SHA256SUMS" "copy it again"
        refuse "SHA256SUMS in $bundle is damaged: $(tail -n 1 <<<"$said")" "copy it again"
    fi
    bundle_sum=$(sha256sum <SHA256SUMS | cut -d ' ' -f 1)
    say "the bundle is whole; sum of SHA256SUMS: $bundle_sum"
    cd "$OLDPWD"
}

find_engine() {
    local name
    for name in ${engine:-podman docker apptainer singularity}; do
        if [[ $name == none ]] || command -v "$name" >/dev/null; then
            engine=$name
            [[ $engine != podman && $engine != docker ]] || ((no_images)) || "$engine" info >/dev/null 2>&1 ||
                refuse "$engine is there but does not answer: $("$engine" info 2>&1 | tail -n 1)" "start it, or another --engine"
            return
        fi
    done
    refuse "there is no ${engine:-podman, docker, apptainer or singularity} on PATH" "install it, or --engine none for a Python environment"
}

find_python() {
    local name
    for name in "python$python" python3 python; do
        if "$name" -c "import sys, venv, ensurepip; sys.exit('%d.%d' % sys.version_info[:2] != '$python')" 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    refuse "there is no Python $python with venv on PATH, for which the wheels are" "install it (Debian 12: python3 python3-venv), or use an engine"
}

unpack() { # the archive as a tar
    case $archive in
    *.zst) zstd -dcq "$archive" ;;
    *.gz) gzip -dc "$archive" ;;
    esac
}

check_zstd() { # podman unpacks by itself; Docker 20.10, Apptainer and Singularity do not
    ((load)) && [[ $engine != podman && $archive == *.zst ]] || return 0
    command -v zstd >/dev/null ||
        refuse "zstd is not on PATH, and $engine cannot read ${archive##*/} without" "install zstd, or have the bundle made with XMODAL_BUNDLE_COMPRESS=gzip"
}

images_are_there() { # all of them, and those of this bundle?
    local kind
    [[ $engine == podman || $engine == docker ]] || return 1
    for kind in "${kinds[@]}"; do
        [[ $("$engine" image inspect --format '{{.Id}}' "${image[$kind]}" 2>/dev/null) == *"${id[$kind]}" ]] || return 1
    done
}

folder_of() { # the nearest folder that is there
    local folder=$1
    while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
    echo "$folder"
}

need() { # FOLDER BYTES: note it by disk
    local disk free
    read -r disk free < <(df -Pk "$(folder_of "$1")" | awk 'NR == 2 { print $1 ":" $6, $4 }')
    needed[$disk]=$((${needed[$disk]:-0} + $2))
    ((needed[$disk] <= free * 1024)) ||
        refuse "$1: $((free / 1048576)) GB are free, $((needed[$disk] / 1073741824 + 1)) GB are needed" "make room, or another --prefix${3:+ ($3)}"
}

check_disk() {
    local small storage
    declare -gA needed=()
    small=$(du -sk "$bundle" --exclude images --exclude wheels | cut -f 1)
    need "$prefix" $((small * 1024))
    [[ $engine != none ]] || need "$prefix" "$venv_bytes"
    ((load)) || return 0
    case $engine in
    podman | docker)
        storage=$("$engine" info --format '{{if .Store}}{{.Store.GraphRoot}}{{end}}' 2>/dev/null || "$engine" info --format '{{.DockerRootDir}}' 2>/dev/null || true)
        [[ -z $storage ]] || need "$storage" "$archive_bytes" "it is the store of $engine"
        # podman lays the unpacked archive down before it reads it, and its layers once more (measured)
        [[ $engine == docker ]] || need "${TMPDIR:-/var/tmp}" $((archive_bytes * 2)) "TMPDIR names another place for what is unpacked" ;;
    *) need "$prefix" $((archive_bytes * 4)) ;; # unpacked, cut out, as a tree, as .sif
    esac
}

load_images() {
    local kind said
    say "loading ${#kinds[@]} images into $engine (minutes)"
    case $archive in *.zst) said=zstd ;; *) said=gzip ;; esac
    if command -v "$said" >/dev/null; then
        unpack | "$engine" load >/dev/null
    else
        "$engine" load -i "$archive" >/dev/null # it unpacks by itself
    fi || { say "$engine could not load the images"; exit 1; }
    for kind in "${kinds[@]}"; do
        said=$("$engine" run --rm --no-healthcheck --network none "${image[$kind]}" xmodal --version) || { say "${image[$kind]} does not run"; exit 1; }
        say "${image[$kind]}: $said"
    done
}

quoted() { printf %q "$1"; } # to be pasted into a shell

sif_of() { # cpu|gpu: name of its file
    local name=${image[$1]##*/}
    ((${#kinds[@]})) && [[ $one_sif == yes ]] && name=${image[${kinds[0]}]##*/}
    echo "${name//:/-}.sif"
}

build_sifs() { # an archive of one image for each, since that is what Apptainer and Singularity read
    local kind work=$stage/.sif sif said
    mkdir -p "$work/all" "$work/tmp" "$stage/images"
    export APPTAINER_TMPDIR=$work/tmp SINGULARITY_TMPDIR=$work/tmp APPTAINER_DISABLE_CACHE=true SINGULARITY_DISABLE_CACHE=true
    unpack | tar -x -C "$work/all"
    for kind in "${kinds[@]}"; do
        sif=$stage/images/$(sif_of "$kind")
        [[ ! -e $sif ]] || continue
        say "building ${sif##*/} with $engine (minutes)"
        cp -f "$bundle/images/$kind.json" "$work/all/manifest.json" # that of podman is read-only
        tar -cf "$work/one.tar" -C "$work/all" manifest.json -T "$bundle/images/$kind.files"
        "$engine" build "$sif" "docker-archive:$work/one.tar" >&2 || { say "$engine could not build ${sif##*/}"; exit 1; }
        rm "$work/one.tar"
        said=$("$engine" exec "$sif" xmodal --version) || # nodes may run it where a machine for logins may not
            said="warning: does not run on this machine; try on a node: $engine exec $(quoted "$prefix/images/${sif##*/}") xmodal --version"
        say "${sif##*/}: $said"
    done
    rm -rf "$work"
}

install_venv() { # beside the pipeline, whose tasks look there first
    local venv=$stage/pipeline/.venv file old new
    say "installing the wheels into $prefix/pipeline/.venv (minutes)"
    "$found_python" -m venv "$venv"
    export PIP_NO_INDEX=1 PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONNOUSERSITE=1
    unset PYTHONPATH PYTHONHOME
    for file in requirements xmodal; do
        "$venv/bin/python" -m pip install --quiet --no-cache-dir --no-deps --find-links "$bundle/wheels" --require-hashes -r "$bundle/$file.lock" >&2
    done
    # Scripts name their Python by its whole path, which is another one after the renaming.
    old=$(sed 's/[][\.*^$|]/\\&/g' <<<"$stage") new=$(sed 's/[\&|]/\\&/g' <<<"$prefix")
    "$venv/bin/python" -c 'import sys; from xmodal.cli import main; sys.argv = ["xmodal", "--version"]; main()' >&2
    { grep -rlIZ -F "$stage" "$venv/bin" "$venv/pyvenv.cfg" || true; } | xargs -0 -r sed -i "s|$old|$new|g"
}

write_config() { # for nextflow -c
    local cpu gpu
    if [[ $engine == none ]]; then
        echo "// xmodal $version, installed without an engine: the tasks use pipeline/.venv." >"$stage/xmodal.config"
        return
    elif ((${#kinds[@]} == 0)); then
        echo "// xmodal $version, from a bundle without images: name your own here, see pipeline/docs/usage.md." >"$stage/xmodal.config"
        return
    fi
    cpu=${kinds[0]} gpu=${kinds[-1]} # of one image both are the same
    case $engine in
    podman | docker) cpu=${image[$cpu]} gpu=${image[$gpu]} ;;
    *) cpu=$prefix/images/$(sif_of "$cpu") gpu=$prefix/images/$(sif_of "$gpu") ;;
    esac
    cat >"$stage/xmodal.config" <<CONFIG
// xmodal $version, installed from a bundle: where its images are. Use: nextflow run ... -c $(quoted "$prefix/xmodal.config")
process {
    withName: 'XMODAL_.*|MULTIQC' {
        container = { task.accelerator ? '$gpu' : '$cpu' }
    }
}
CONFIG
}

place_files() {
    local name
    for name in pipeline nextflow models galaxy_tools sbom MANIFEST.json README.md; do
        [[ ! -e $bundle/$name ]] || cp -R "$bundle/$name" "$stage/$name"
    done
}

next_steps() {
    local profile=$engine,offline flow run model
    [[ $engine != none ]] || profile=offline
    flow=$(quoted "$prefix/nextflow/nextflow")
    [[ -e $prefix/nextflow ]] || flow=nextflow
    run="$flow run $(quoted "$prefix/pipeline") -profile"
    cat <<NEXT
xmodal $version is in $prefix. Try it (a minute), then use it:

  $run test,$profile -c $(quoted "$prefix/xmodal.config") --outdir xmodal_test
  $run $profile -c $(quoted "$prefix/xmodal.config") --input samplesheet.csv --outdir results
NEXT
    for model in "${models[@]}"; do
        echo "with --checkpoint $(quoted "$prefix/$model")"
    done
}

read_contents
prefix=${HOME:+$HOME/xmodal-$version} engine='' no_images=0
while (($#)); do
    case $1 in
    --help | -h) show_help; exit ;;
    --no-images) no_images=1; shift ;;
    --prefix | --engine)
        (($# > 1)) && [[ -n $2 ]] || usage "$1 needs a value"
        [[ $1 == --prefix ]] && prefix=$2 || engine=$2
        shift 2 ;;
    *) usage "there is no option '$1'" ;;
    esac
done
case $engine in '' | podman | docker | apptainer | singularity | none) ;; *) usage "--engine: '$engine' is none of podman, docker, apptainer, singularity, none" ;; esac
[[ -n $prefix ]] || usage "HOME is not set, so --prefix is needed"
prefix=$(realpath -m "$prefix")
[[ $prefix != "$bundle" && $prefix != "$bundle"/* ]] || usage "--prefix $prefix lies in the bundle"
[[ $prefix != *[\'\$\\\"]* ]] || usage "--prefix: quotes, \$ and backslashes cannot be in it"

check_sums
find_engine
if [[ -e $prefix && ! -d $prefix ]]; then
    refuse "$prefix is a file" "another --prefix"
elif [[ -d $prefix && "$(cat "$prefix/.bundle" 2>/dev/null)" == "$bundle_sum $engine $no_images" ]]; then
    again=1
elif [[ -n $(ls -A "$prefix" 2>/dev/null) ]]; then
    refuse "$prefix is not empty, and not of this bundle installed in this way" "another --prefix, or remove that folder first"
fi
near=$(folder_of "$(dirname "$prefix")")
[[ -w $near ]] || refuse "the folder $near cannot be written" "give a --prefix of your own"
load=0
((no_images || ${#kinds[@]} == 0)) || [[ $engine == none ]] || images_are_there || load=1
if [[ -n ${again:-} ]]; then
    if [[ $engine == podman || $engine == docker ]] && ((load)); then
        check_zstd
        check_disk
        load_images
    fi
    say "already installed"
    next_steps
    exit
fi
[[ $engine != none ]] || found_python=$(find_python) || exit 3
check_zstd
check_disk

left=$(compgen -G "$prefix.part.*" || true)
[[ -z $left ]] || say "an earlier run was killed and left $left: remove it where none is running"
(umask 022 && mkdir -p "$(dirname "$prefix")") # parents for all, as what goes into them
stage=$(mktemp -d "$prefix.part.XXXXXX")
trap 'rm -rf "$stage"' EXIT # after the renaming it is gone
trap 'exit 130' INT
trap 'exit 143' TERM HUP
place_files
[[ $engine != none ]] || install_venv
if ((load)); then
    case $engine in podman | docker) load_images ;; *) build_sifs ;; esac
fi
write_config
echo "$bundle_sum $engine $no_images" >"$stage/.bundle"
chmod -R u+w,a+rX "$stage" # for all, whatever the umask; and the medium may have been read-only
[[ ! -d $prefix ]] || rmdir "$prefix"
mv -T "$stage" "$prefix"
next_steps
