process XMODAL_PREPARE {
    tag "${meta.id}"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/crossmodal/xmodal:0.1.0"

    input:
    // sheet: the text of a samplesheet whose files are named input1/NAME, input2/NAME, ... in the order of `files`
    // peaks: a model (.safetensors) or a file of peaks over which fragments are counted, or []
    tuple val(meta), val(sheet), path(files, stageAs: 'input?/*'), path(peaks, stageAs: 'peaks/*')

    output:
    tuple val(meta), path("*.h5mu")        , emit: h5mu
    tuple val(meta), path("*.prepare.json"), emit: json
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def over = !peaks ? '' : peaks.name.endsWith('.safetensors') ? "--checkpoint ${peaks}" : "--peaks ${peaks}"
    def lines = sheet.readLines().collect { line -> "'${line}'" }.join(' ')
    """
    printf '%s\\n' ${lines} >| samplesheet.csv
    xmodal prepare \\
        ${args} \\
        --overwrite \\
        ${over} \\
        --samplesheet samplesheet.csv \\
        --threads ${task.cpus} \\
        --device cpu \\
        --output ${prefix}.h5mu \\
        --summary ${prefix}.prepare.json
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.h5mu
    echo '{}' > ${prefix}.prepare.json
    """
}
