process XMODAL_SELECT {
    tag "${meta.id}"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container "ghcr.io/crossmodal/xmodal:0.1.0"

    input:
    // training, evaluation: folders of the trials; names: all trials that were started, so that lost ones are listed as failed
    tuple val(meta), path(training, stageAs: 'training/*'), path(evaluation, stageAs: 'evaluation/*'), val(names)

    output:
    tuple val(meta), path("${prefix}")                  , emit: selection
    tuple val(meta), path("${prefix}/model.safetensors"), emit: checkpoint
    tuple val(meta), path("${prefix}/selection.tsv")    , emit: tsv
    tuple val(meta), path("${prefix}/selection.json")   , emit: json
    tuple val(meta), path("${prefix}/selection.png")    , emit: png
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def given = ['--training': [training].flatten(), '--evaluation': [evaluation].flatten(), '--expect': names]
    def parts = given.collectMany { option, values -> values.collect { value -> "${option} ${value}" } }.join(' ')
    """
    xmodal select \\
        ${args} \\
        --overwrite \\
        ${parts} \\
        --threads ${task.cpus} \\
        --device cpu \\
        --output-dir ${prefix}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${prefix}
    touch ${prefix}/model.safetensors ${prefix}/selection.tsv ${prefix}/selection.png
    echo '{"best": {"name": "stub", "model": "mean", "settings": [], "seed": 0}}' > ${prefix}/selection.json
    """
}
