//! The questions of CharXiv: what the published tasks ask word for word, as a question and the demands below it.

/// A question and its demands.
pub type Instruction = (&'static str, &'static [&'static str]);

/// The descriptive questions by their numbers from 1. The last two are about the whole figure.
pub const DESCRIPTIVE: [Instruction; 19] = [
    (
        "what is its title?",
        &[
            "Your final answer should be the most relevant title of the plot that is explicitly written.",
            "If the plot does not have an explicit title or contains only a letter, answer 'Not Applicable'.",
        ],
    ),
    (
        "what is the label of the x-axis?",
        &[
            "Your final answer should be the label of the x-axis that is explicitly written, including the case when x-axis is shared across multiple subplots. When the x-axis is present on both the top and bottom of the plot, answer the label of the x-axis at the bottom.",
            "If the plot does not have an explicit x-axis label, answer 'Not Applicable'.",
        ],
    ),
    (
        "what is the label of the y-axis?",
        &[
            "Your final answer should be the label of the y-axis that is explicitly written, including the case when y-axis is shared across multiple subplots. When the y-axis is present on both the left and right of the plot, answer the label of the y-axis at the left.",
            "If the plot does not have an explicit y-axis label, answer 'Not Applicable'.",
        ],
    ),
    (
        "what is the leftmost labeled tick on the x-axis?",
        &[
            "Your final answer should be the tick value on the x-axis that is explicitly written, including the case when x-axis is shared across multiple subplots. When the x-axis is present on both the top and bottom of the plot, answer based on the axis at the bottom. Ignore units or scales that are written separately from the tick, such as units and scales from the axis label or the corner of the plot.",
        ],
    ),
    (
        "what is the rightmost labeled tick on the x-axis?",
        &[
            "Your final answer should be the tick value on the x-axis that is explicitly written, including the case when x-axis is shared across multiple subplots. When the x-axis is present on both the top and bottom of the plot, answer based on the axis at the bottom. Ignore units or scales that are written separately from the tick, such as units and scales from the axis label or the corner of the plot.",
        ],
    ),
    (
        "what is the spatially lowest labeled tick on the y-axis?",
        &[
            "Your final answer should be the tick value on the y-axis that is explicitly written, including the case when y-axis is shared across multiple subplots. When the y-axis is present on both the left and right of the plot, based on the axis at the left. Ignore units or scales that are written separately from the tick, such as units and scales from the axis label or the corner of the plot.",
        ],
    ),
    (
        "what is the spatially highest labeled tick on the y-axis?",
        &[
            "Your final answer should be the tick value on the y-axis that is explicitly written, including the case when y-axis is shared across multiple subplots. When the y-axis is present on both the left and right of the plot, based on the axis at the left. Ignore units or scales that are written separately from the tick, such as units and scales from the axis label or the corner of the plot.",
        ],
    ),
    (
        "what is difference between consecutive numerical tick values on the x-axis?",
        &[
            "Your final answer should be the difference between consecutive numerical tick values of the x-axis, including the case when x-axis is shared across multiple subplots. When the x-axis is present on both the top and bottom of the plot, answer based on the axis at the bottom. Ignore units or scales that are written separately from the tick, such as units and scales from the axis label or the corner of the plot.",
            "If the plot does not have an explicit x-axis tick value, or if the tick values are not numerical, or if the difference is not constant between all consecutive tick values, answer \"Not Applicable\".",
        ],
    ),
    (
        "what is difference between consecutive numerical tick values on the y-axis?",
        &[
            "Your final answer should be the difference between consecutive numerical tick values of the y-axis, including the case when y-axis is shared across multiple subplots. When the y-axis is present on both the left and right of the plot, answer based on the axis at the left. Ignore units or scales that are written separately from the tick, such as units and scales from the axis label or the corner of the plot.",
            "If the plot does not have an explicit y-axis tick value, or if the tick values are not numerical, or if the difference is not constant between all consecutive tick values, answer \"Not Applicable\".",
        ],
    ),
    (
        "how many lines are there?",
        &[
            "Your final answer should be the number of lines in the plot. Ignore grid lines, tick marks, and any vertical or horizontal auxiliary lines.",
            "If the plot does not contain any lines or is not considered a line plot, answer \"Not Applicable\".",
        ],
    ),
    (
        "do any lines intersect?",
        &[
            "Your final answer should be \"Yes\" if any lines intersect, and \"No\" otherwise. Ignore grid lines, tick marks, and any vertical or horizontal auxiliary lines.",
            "If the plot does not contain any lines or is not considered a line plot, answer \"Not Applicable\".",
        ],
    ),
    (
        "how many discrete labels are there in the legend?",
        &[
            "Your final answer should account for only labels relevant to the plot in the legend, even if the legend is located outside the plot. ",
            "If the plot does not have a legend or no legend is not considered relevant to this plot, answer \"Not Applicable\".",
        ],
    ),
    (
        "what are the names of the labels in the legend?",
        &[
            "You should write down the labels from top to bottom, then from left to right and separate the labels with commas. Your final answer should account for only labels relevant to the plot in the legend, even if the legend is located outside the plot.",
            "If the plot does not have a legend or no legend is not considered relevant to this plot, answer \"Not Applicable\".",
        ],
    ),
    (
        "what is the difference between the maximum and minimum values of the tick labels on the continuous legend (i.e., colorbar)?",
        &[
            "You should remove the percentage sign (if any) in your answer.",
            "If the plot does not have an explicit colorbar-based continuous legend or the legend is not considered relevant to this subplot, answer \"Not Applicable\".",
        ],
    ),
    (
        "what is the maximum value of the tick labels on the continuous legend (i.e., colorbar)?",
        &[
            "You should remove the percentage sign (if any) in your answer. ",
            "If the plot does not have an explicit colorbar-based continuous legend or the legend is not considered relevant to this subplot, answer \"Not Applicable\".",
        ],
    ),
    (
        "what is the general trend of data from left to right?",
        &["Your final answer should be within a few words, such as \"increases\", \"increases then stabilizes\"."],
    ),
    (
        "What is the total number of explicitly labeled ticks across all axes?",
        &[
            "Your final answer should be the total number of explicitly labeled ticks across all axes, including the case when any axis is shared across multiple subplots.",
        ],
    ),
    (
        "What is the layout of the subplots?",
        &[
            "Your final answer should follow \"n by m\" format, where n is the number of rows and m is the number of columns.",
            "If the plot does not contain subplots, answer \"1 by 1\".",
        ],
    ),
    (
        "What is the number of subplots?",
        &[
            "Your final answer should be the total number of subplots in the plot.",
            "If the plot does not contain subplots, answer \"1\".",
        ],
    ),
];

/// The demands below a reasoning question, by the kind of its answer from 1; the last has one of its own.
pub const REASONING: [&[&str]; 3] = [
    &[
        "Your final answer must be grounded to some text that is explicitly written and relevant to the question in the chart.",
        "If you need to answer multiple terms, separate them with commas.",
        "Unless specified in the question (such as answering with a letter), you are required to answer the full names of subplots and/or labels by default.",
    ],
    &[
        "If there are options in the question, your final answer must conform to one of the options.",
        "If there are additional instructions in the question, follow them accordingly.",
        "If there are neither options nor additional instructions, you are allowed to respond with a short phrase only.",
    ],
    &[
        "Your final answer must be grounded to a number that is exlicitly written and relevant to the question in the chart, even if it's an approximate value.",
        "You are allowed to extract numbers within some text when needed.",
    ],
];
