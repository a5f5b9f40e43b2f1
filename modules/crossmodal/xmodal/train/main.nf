process XMODAL_TRAIN {
    tag "${meta.id}"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "${ task.accelerator ? 'ghcr.io/crossmodal/xmodal:0.1.0-cuda' : 'ghcr.io/crossmodal/xmodal:0.1.0' }"

    input:
    tuple val(meta), path(cells, stageAs: 'input/*')
    path gene_table
    path links

    output:
    tuple val(meta), path("${prefix}")                  , emit: training
    tuple val(meta), path("${prefix}/model.safetensors"), emit: checkpoint
    tuple val(meta), path("${prefix}/history.tsv")      , emit: history
    tuple val(meta), path("${prefix}/metrics.json")     , emit: metrics
    tuple val("${task.process}"), val('xmodal'), eval("xmodal --version | sed 's/.* //'"), emit: versions_xmodal, topic: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    def device = task.accelerator ? 'cuda' : 'cpu'
    def genes = gene_table ? "--gene-table ${gene_table}" : ''
    def pairs = links ? "--links ${links}" : ''
    """
    xmodal train \\
        ${args} \\
        ${genes} \\
        ${pairs} \\
        --threads ${task.cpus} \\
        --device ${device} \\
        --output-dir ${prefix} \\
        ${cells}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir -p ${prefix}
    touch ${prefix}/model.safetensors ${prefix}/history.tsv
    echo '{}' > ${prefix}/metrics.json
    """
}
