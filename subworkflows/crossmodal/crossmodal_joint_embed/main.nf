// Embed cells with several modalities and cells with one together; denoise them, find what marks their clusters, score.

include { XMODAL_EMBED    } from '../../../modules/crossmodal/xmodal/embed/main'
include { XMODAL_EVALUATE } from '../../../modules/crossmodal/xmodal/evaluate/main'
include { XMODAL_IMPUTE   } from '../../../modules/crossmodal/xmodal/impute/main'
include { XMODAL_MARKERS  } from '../../../modules/crossmodal/xmodal/markers/main'

// Whether there are clusters to tell from each other, by the summary of XMODAL_EMBED; yes in a stub run, which has none.
def hasClusters(meta, json) {
    def sizes = new groovy.json.JsonSlurper().parseText(json.text).sizes
    def one = sizes && sizes.size() < 2
    if (one) {
        log.warn("${meta.id}: all cells are one cluster, so there are no markers")
    }
    return !one
}

workflow CROSSMODAL_JOINT_EMBED {
    take:
    ch_cells // channel: [ val(meta), path(h5mu), path(checkpoint), val(split) ]  split: '' for all cells

    main:
    XMODAL_EMBED(ch_cells)

    // Markers are tested on counts; the denoised values rank them as well.
    ch_checkpoints = ch_cells.map { meta, _h5mu, checkpoint, _split -> [meta, checkpoint] }
    XMODAL_IMPUTE(XMODAL_EMBED.out.h5mu.join(ch_checkpoints))
    XMODAL_MARKERS(
        XMODAL_IMPUTE.out.h5mu
            .join(XMODAL_EMBED.out.json)
            .filter { meta, _h5mu, json -> hasClusters(meta, json) }
            .map { meta, h5mu, _json -> [meta, h5mu] }
    )

    XMODAL_EVALUATE(
        ch_cells
            .join(XMODAL_EMBED.out.h5mu)
            .map { meta, h5mu, checkpoint, _split, embedded -> [meta, h5mu, [], [], checkpoint, embedded, [], [], []] },
        [],
    )

    emit:
    embedded   = XMODAL_EMBED.out.h5mu          // channel: [ val(meta), path(h5mu) ]
    embedding  = XMODAL_EMBED.out.overview      // channel: [ val(meta), path(folder) ]
    imputed    = XMODAL_IMPUTE.out.h5mu         // channel: [ val(meta), path(h5mu) ]
    markers    = XMODAL_MARKERS.out.markers     // channel: [ val(meta), path(folder) ]
    evaluation = XMODAL_EVALUATE.out.evaluation // channel: [ val(meta), path(folder) ]
}
