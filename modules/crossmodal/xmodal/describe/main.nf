process XMODAL_DESCRIBE {
    tag "${meta.id}"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "${ task.accelerator ? 'ghcr.io/crossmodal/xmodal:0.1.0-cuda' : 'ghcr.io/crossmodal/xmodal:0.1.0' }"

    input:
    // split: describe these cells only (train, valid, test), or ''
    tuple val(meta), path(cells, stageAs: 'input/*'), path(checkpoint, stageAs: 'checkpoint/*'), val(split)
    path decoder        // folder that `xmodal describe --train-decoder` wrote, to word the facts, or [] for fixed words
    path language_model // folder of the language model that was adapted to make it, or [] where it stands alone

    output:
    tuple val(meta), path("${prefix}")                    , emit: descriptions
    tuple val(meta), path("${prefix}/descriptions.tsv")   , emit: table
    tuple val(meta), path("${prefix}/descriptions.json")  , emit: json
    tuple val(meta), path("${prefix}/index.html")         , emit: html
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def device = task.accelerator ? 'cuda' : 'cpu'
    def chosen = split ? "--split ${split}" : ''
    def kind = language_model ? "hf:${language_model}" : 'scratch'
    def worded = decoder ? "--decoder ${kind} --decoder-dir ${decoder}" : ''
    """
    xmodal describe \\
        ${args} \\
        --overwrite \\
        ${chosen} \\
        ${worded} \\
        --checkpoint ${checkpoint} \\
        --threads ${task.cpus} \\
        --device ${device} \\
        --output-dir ${prefix} \\
        ${cells}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${prefix}
    touch ${prefix}/descriptions.tsv ${prefix}/index.html
    echo '{}' > ${prefix}/descriptions.json
    """
}
